module bench

go 1.24

require mmopt v0.0.0

replace mmopt => ../../../bindings/go

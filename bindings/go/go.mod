module mmopt

go 1.24

module libmmopt.dev/mmopt

go 1.24

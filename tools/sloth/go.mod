module tools/sloth

go 1.26.0

require github.com/slok/sloth v0.12.0

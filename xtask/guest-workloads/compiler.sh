#!/bin/sh
# GCC compiles programs, which then run: what the compiler is for, and code that changes under way.
set -e
cd /workload
compile() { gcc-14 "$@"; }
compile -O2 -Wall -Werror -o /tmp/signals signals.c
/tmp/signals
compile -O1 -Wall -Werror -o /tmp/written_code written_code.c
/tmp/written_code
compile -O2 -g -Wall -Werror -S -o /tmp/first.s lisp.c
compile -O2 -g -Wall -Werror -S -o /tmp/second.s lisp.c
cmp /tmp/first.s /tmp/second.s
compile -o /tmp/lisp /tmp/first.s
test "$(/tmp/lisp)" = 6765

#!/bin/sh
# V8 compiles, optimises, gives optimised code up again, and throws code away.
exec node /workload/node.js

//! The replication core: sans-I/O. Time is an argument; sockets, files and threads are the caller's.
#![forbid(unsafe_code)]

#!/bin/sh
# HotSpot interprets, compiles twice, gives compiled code up again, and patches code that other threads
# execute; javac, itself such a program, runs first.
exec /usr/lib/jvm/java-21-openjdk-*/bin/java -Xmx400m -XX:+UseG1GC /workload/Workload.java

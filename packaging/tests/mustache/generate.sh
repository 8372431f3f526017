#!/bin/sh
# Makes goldens.json: pairs.py says which templates and values, mustache.java what comes out.
# Needs python3, a JDK, and Debian's libmustache-java and libjackson2-databind-java.
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
jars=/usr/share/java
path=$jars/mustache-compiler.jar:$jars/guava.jar:$jars/jackson-databind.jar:$jars/jackson-core.jar:$jars/jackson-annotations.jar
javac -cp "$path" -d "$out" Render.java
python3 pairs.py >"$out/pairs.json"
java -cp "$path:$out" Render "$out/pairs.json" >"$out/goldens.json"
mv "$out/goldens.json" goldens.json

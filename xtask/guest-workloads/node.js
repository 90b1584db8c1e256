// A program that keeps V8's compilers busy, and checks what their code computes.
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');
const vm = require('node:vm');

// Integers in a typed array: optimised early, replaced on the stack while it runs.
function sieve(limit) {
    const composite = new Uint8Array(limit + 1);
    let primes = 0;
    for (let n = 2; n <= limit; n++) {
        if (composite[n]) continue;
        primes++;
        for (let m = n * n; m <= limit; m += n) composite[m] = 1;
    }
    return primes;
}
assert.strictEqual(sieve(200000), 17984);

// Floating point.
function integral(steps) {
    let sum = 0;
    for (let i = 0; i < steps; i++) {
        const x = (i + 0.5) / steps;
        sum += 4 / (1 + x * x);
    }
    return sum / steps;
}
for (let i = 0; i < 20; i++) assert(Math.abs(integral(5000) - Math.PI) < 1e-8);

// The same call site sees more and more kinds of objects: what was optimised is given up.
class Square { constructor(a) { this.a = a; } area() { return this.a * this.a; } }
class Rectangle { constructor(a, b) { this.a = a; this.b = b; } area() { return this.a * this.b; } }
class Triangle { constructor(a, b) { this.b = b; this.a = a; } area() { return this.a * this.b / 2; } }
function total(shapes) {
    let sum = 0;
    for (const shape of shapes) sum += shape.area();
    return sum;
}
const squares = Array.from({ length: 500 }, (_, i) => new Square(i));
const mixed = squares.map((s, i) => (i % 3 === 0 ? s : i % 3 === 1 ? new Rectangle(i, 2) : new Triangle(i, 4)));
for (let i = 0; i < 100; i++) assert.strictEqual(total(squares), 41541750);
const once = total(mixed);
for (let i = 0; i < 100; i++) assert.strictEqual(total(mixed), once);
assert.strictEqual(total([...mixed, { area: () => '!' }]), `${once}!`);

// Small integers overflow into doubles in code that was optimised without them.
function add(a, b) { return a + b; }
for (let i = 0; i < 20000; i++) add(i, 1);
assert.strictEqual(add(2 ** 31 - 1, 1), 2 ** 31);
assert.strictEqual(add('a', 1), 'a1');

// Code that is written at run time, called, and forgotten.
let written = 0;
for (let i = 0; i < 60; i++) {
    const f = new Function('x', `let s = 0; for (let k = 0; k < 300; k++) s = (s * 31 + k + x * ${i}) | 0; return s;`);
    for (let k = 0; k < 8; k++) written = (written + f(k)) | 0;
}
const again = vm.runInNewContext('let w = 0;' +
    'for (let i = 0; i < 60; i++) for (let x = 0; x < 8; x++) {' +
    'let s = 0; for (let k = 0; k < 300; k++) s = (s * 31 + k + x * i) | 0; w = (w + s) | 0; } w');
assert.strictEqual(written, again);

// Regular expressions have a compiler of their own.
const text = 'understudy 2010 goes live 2026-11-22, '.repeat(200);
assert.strictEqual(text.match(/\d{4}-(0\d|1[0-2])-\d\d/g).length, 200);
assert.strictEqual(text.replace(/(\w+) (\d+)/g, '$2 $1').indexOf('2010 understudy'), 0);

// Garbage, big integers, maps, JSON, generators, a hash.
let list = null;
for (let i = 0; i < 30000; i++) list = { next: i % 100 ? list : null, value: [i, String(i)] };
assert.strictEqual(list.value[1], '29999');
let factorial = 1n;
for (let i = 1n; i <= 100n; i++) factorial *= i;
assert.strictEqual(String(factorial).length, 158);
const map = new Map(Array.from({ length: 5000 }, (_, i) => [`key ${i}`, i]));
assert.strictEqual([...map.values()].reduce(add), 12497500);
function* count(n) { for (let i = 0; i < n; i++) yield i; }
assert.strictEqual([...count(2000)].length, 2000);
const copy = JSON.parse(JSON.stringify(mixed));
assert.strictEqual(copy.length, 500);
assert.strictEqual(crypto.createHash('sha256').update('abc').digest('hex').slice(0, 8), 'ba7816bf');

// WebAssembly: (func (export "f") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
const module_ = new WebAssembly.Module(new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0,
    10, 9, 1, 7, 0, 32, 0, 65, 3, 108, 11]));
const f = new WebAssembly.Instance(module_).exports.f;
for (let i = 0; i < 1000; i++) assert.strictEqual(f(i), 3 * i);

setTimeout(() => console.log(`node ${process.version}: all as expected`), 10);

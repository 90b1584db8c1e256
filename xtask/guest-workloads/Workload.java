// A program that keeps HotSpot's compilers busy, and checks what their code computes.

import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.ref.WeakReference;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongUnaryOperator;
import java.util.stream.IntStream;

public class Workload {
    static void check(Object found, Object expected, String what) {
        if (!found.equals(expected)) {
            throw new AssertionError(what + ": " + found + ", expected " + expected);
        }
    }

    // A loop that becomes hot while it runs: replaced on the stack.
    static int sieve(int limit) {
        boolean[] composite = new boolean[limit + 1];
        int primes = 0;
        for (int n = 2; n <= limit; n++) {
            if (composite[n]) continue;
            primes++;
            for (long m = (long) n * n; m <= limit; m += n) composite[(int) m] = true;
        }
        return primes;
    }

    static double integral(int steps) {
        double sum = 0;
        for (int i = 0; i < steps; i++) {
            double x = (i + 0.5) / steps;
            sum += 4 / (1 + x * x);
        }
        return sum / steps;
    }

    // A call site with one receiver, then two, then many: what was inlined is given up.
    interface Shape { long area(); }
    record Square(long a) implements Shape { public long area() { return a * a; } }
    record Rectangle(long a, long b) implements Shape { public long area() { return a * b; } }
    record Triangle(long a, long b) implements Shape { public long area() { return a * b / 2; } }

    static long total(List<? extends Shape> shapes) {
        long sum = 0;
        for (Shape shape : shapes) sum += shape.area();
        return sum;
    }

    static void receivers() {
        List<Square> squares = new ArrayList<>();
        List<Shape> mixed = new ArrayList<>();
        for (int i = 0; i < 500; i++) {
            squares.add(new Square(i));
            mixed.add(switch (i % 3) {
                case 0 -> new Square(i);
                case 1 -> new Rectangle(i, 2);
                default -> new Triangle(i, 4);
            });
        }
        for (int i = 0; i < 400; i++) check(total(squares), 41541750L, "squares");
        long once = total(mixed);
        for (int i = 0; i < 400; i++) check(total(mixed), once, "mixed");
    }

    // Compiled code checks neither for null nor for zero where a signal tells it.
    static int length(String text) { return text.length(); }

    static void implicitChecks() {
        int caught = 0;
        for (int i = 0; i < 30_000; i++) {
            try {
                caught += length(i % 5000 == 4999 ? null : "ab") - 2;
            } catch (NullPointerException e) {
                caught++;
            }
        }
        check(caught, 6, "null pointers");
        int divided = 0;
        for (int i = 0; i < 30_000; i++) {
            try {
                divided += 100 / (i % 5000 == 4999 ? 0 : 100) - 1;
            } catch (ArithmeticException e) {
                divided++;
            }
        }
        check(divided, 6, "divisions by zero");
    }

    // Threads that meet at one counter, one map, one queue and one lock.
    static long locked;

    static void threads() throws Exception {
        final int threads = 4, rounds = 5_000;
        AtomicLong counter = new AtomicLong();
        ConcurrentHashMap<Integer, Long> map = new ConcurrentHashMap<>();
        ArrayBlockingQueue<Integer> queue = new ArrayBlockingQueue<>(16);
        List<Thread> all = new ArrayList<>();
        for (int t = 0; t < threads; t++) {
            final int first = t;
            Thread thread = new Thread(() -> {
                for (int i = 0; i < rounds; i++) {
                    counter.incrementAndGet();
                    map.merge(i % 100, 1L, Long::sum);
                    synchronized (Workload.class) { locked++; }
                    try {
                        if (first % 2 == 0) queue.put(i); else queue.take();
                    } catch (InterruptedException e) {
                        throw new IllegalStateException(e);
                    }
                }
            });
            thread.start();
            all.add(thread);
        }
        for (Thread thread : all) thread.join();
        check(counter.get(), (long) threads * rounds, "the counter");
        check(map.values().stream().mapToLong(n -> n).sum(), (long) threads * rounds, "the map");
        check(locked, (long) threads * rounds, "what a lock protects");
        check(queue.size(), 0, "the queue");
    }

    // Code that is written at run time, called, and forgotten.
    static void writtenCode() throws Throwable {
        long sum = 0;
        for (int i = 0; i < 40; i++) {
            final int factor = i;
            LongUnaryOperator f = x -> x * 31 + factor;
            var handle = MethodHandles.lookup().findVirtual(
                LongUnaryOperator.class, "applyAsLong", MethodType.methodType(long.class, long.class));
            var bound = MethodHandles.insertArguments(handle.bindTo(f), 0, (long) i);
            for (int k = 0; k < 500; k++) sum += (long) bound.invoke();
        }
        check(sum, 500L * 32 * 780, "method handles");
    }

    // Garbage of all ages, moved while compiled code runs.
    static void garbage() {
        List<byte[]> kept = new ArrayList<>();
        WeakReference<byte[]> lost = new WeakReference<>(new byte[1000]);
        long bytes = 0;
        for (int i = 0; i < 60_000; i++) {
            byte[] block = new byte[100 + i % 5000];
            block[i % 100] = 1;
            bytes += block.length;
            if (i % 50 == 0) kept.add(block);
        }
        System.gc();
        int marked = 0;
        for (byte[] block : kept) for (byte b : block) marked += b;
        check(marked, kept.size(), "what was kept");
        check(bytes, 60_000L * 100 + 12 * (4999L * 5000 / 2), "allocated");
        check(lost.get() == null, true, "a weak reference after a collection");
    }

    static void hash() throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] block = new byte[1 << 16];
        for (int i = 0; i < 16; i++) digest.update(block);
        check(HexFormat.of().formatHex(digest.digest()),
            "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58", "SHA-256 of a MiB of zeros");
    }

    static int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

    static int deep(int n) { return n == 0 ? 0 : 1 + deep(n - 1); }

    public static void main(String[] arguments) throws Throwable {
        for (int i = 0; i < 3; i++) check(sieve(500_000), 41538, "primes");
        for (int i = 0; i < 50; i++) check(Math.abs(integral(5000) - Math.PI) < 1e-8, true, "pi");
        receivers();
        implicitChecks();
        check(fibonacci(25), 75025, "fibonacci");
        boolean overflowed = false;
        try {
            deep(Integer.MAX_VALUE);
        } catch (StackOverflowError e) {
            overflowed = true;
        }
        check(overflowed, true, "the guard pages of the stack");
        threads();
        writtenCode();
        garbage();
        hash();
        check(IntStream.range(0, 200_000).parallel().filter(n -> n % 7 == 3).count(), 28571L, "a parallel stream");
        System.out.println("java " + System.getProperty("java.version") + ": all is well");
    }
}

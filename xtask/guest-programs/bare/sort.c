/* Unpredictable branches: quicksort of pseudo-random numbers. */
static int numbers[65536];
volatile int result;
static void sort(int *a, int left, int right) {
    while (left < right) {
        int pivot = a[(left + right) / 2], i = left, j = right;
        while (i <= j) {
            while (a[i] < pivot) i++;
            while (a[j] > pivot) j--;
            if (i <= j) { int t = a[i]; a[i] = a[j]; a[j] = t; i++; j--; }
        }
        sort(a, left, j);
        left = i;
    }
}
void run(void) {
    for (int round = 0; round < 80; round++) {
        unsigned int seed = (unsigned int)round + 1;
        for (int i = 0; i < 65536; i++) { seed = seed * 1103515245u + 12345u; numbers[i] = (int)(seed >> 3); }
        sort(numbers, 0, 65535);
        result = numbers[7];
    }
}

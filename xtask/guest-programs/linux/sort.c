/* Unpredictable branches: quicksort of pseudo-random numbers. AMOUNT: rounds of 65536 numbers. */
#include "work.h"

#define COUNT 65536
static int numbers[COUNT];

static void sort(int *a, int left, int right) {
    while (left < right) {
        int pivot = a[(left + right) / 2], i = left, j = right;
        while (i <= j) {
            while (a[i] < pivot) i++;
            while (a[j] > pivot) j--;
            if (i <= j) {
                int swapped = a[i];
                a[i++] = a[j];
                a[j--] = swapped;
            }
        }
        sort(a, left, j);
        left = i;
    }
}

int main(int argc, char **argv) {
    uint64_t sum = 0, seed = 1;
    for (uint64_t round = work(argc, argv); round > 0; round--) {
        for (int i = 0; i < COUNT; i++) numbers[i] = (int)(random_next(&seed) >> 34);
        sort(numbers, 0, COUNT - 1);
        for (int i = 1; i < COUNT; i++)
            if (numbers[i - 1] > numbers[i]) return 1;
        sum = sum * 31 + (uint64_t)numbers[COUNT / 3];
    }
    return report(sum);
}

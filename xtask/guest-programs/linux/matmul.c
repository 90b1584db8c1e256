/* Double-precision products and sums: matrices of 128 by 128. AMOUNT: rounds. */
#include "work.h"

#define N 128
static double a[N][N], b[N][N], c[N][N];

int main(int argc, char **argv) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = 1.0 / (i + j + 1), b[i][j] = 1.0 / (i + 2 * j + 1);
    for (uint64_t round = work(argc, argv); round > 0; round--) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        a[round % N][5] = c[3][round % N];
    }
    double trace = 0;
    for (int i = 0; i < N; i++) trace += c[i][i];
    return report_rounded(trace);
}

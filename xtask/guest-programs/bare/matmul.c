/* Double-precision floating point. */
#define N 64
static double a[N][N], b[N][N], c[N][N];
volatile double result;
void run(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) { a[i][j] = 1.0 / (i + j + 1); b[i][j] = 1.0 / (i + 2 * j + 1); }
    for (int round = 0; round < 250; round++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        result = c[3][4];
    }
}

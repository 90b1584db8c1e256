/* Context switches: two processes hand a number to and fro through pipes. AMOUNT: round trips, in
   thousands. */
#include "work.h"
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    uint64_t trips = work(argc, argv) * 1000, number = 1;
    int there[2], back[2];
    if (pipe(there) || pipe(back)) return 1;
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        for (uint64_t i = 0; i < trips; i++) {
            if (read(there[0], &number, sizeof number) != sizeof number) _exit(1);
            number = number * 31 + 1;
            if (write(back[1], &number, sizeof number) != sizeof number) _exit(1);
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < trips; i++) {
        if (write(there[1], &number, sizeof number) != sizeof number) return 1;
        if (read(back[0], &number, sizeof number) != sizeof number) return 1;
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    return report(number);
}

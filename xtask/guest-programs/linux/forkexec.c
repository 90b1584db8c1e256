/* Page tables and new address spaces: fork, exec of itself, wait. AMOUNT: processes. */
#include "work.h"
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc == 3) return atoi(argv[2]);
    uint64_t sum = 0;
    for (uint64_t left = work(argc, argv); left > 0; left--) {
        char status_text[8];
        snprintf(status_text, sizeof status_text, "%d", (int)(left % 100));
        pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            execl(argv[0], argv[0], "0", status_text, (char *)NULL);
            _exit(127);
        }
        int status;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 1;
        sum = sum * 31 + (uint64_t)WEXITSTATUS(status);
    }
    return report(sum);
}

/* Included before every file of the engine: its debugging output goes nowhere.
 *
 * There is no stream in an isolate, and the C library's would import the host's. What is left is
 * vsnprintf and snprintf, which write to memory. */
#include <stdio.h>

#define printf(...) (0)
#define fprintf(...) (0)
#define vfprintf(...) (0)
#define putchar(c) (0)
#define fputc(c, stream) (0)
#define fputs(text, stream) (0)
#define fwrite(data, size, items, stream) (0)

/* The guest's memory allocator: malloc and its family over memory.grow. See heap.c. */
#ifndef BEDDEL_HEAP_H
#define BEDDEL_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct heap_figures {
    uint32_t used_bytes; /* held by live blocks, their headers included */
    uint32_t peak_bytes; /* the largest used_bytes so far */
};

/* Where the figures are kept. Point it at another place before the first allocation. */
extern struct heap_figures *heap_figures;

/* How many requests were answered with NULL. Only a real refusal moves it. */
extern uint32_t heap_refusals;

size_t malloc_usable_size(void *payload);

#endif

/* A two-level segregated-fit allocator for one linear memory.
 *
 * The engine cuts small objects out of arenas of 4 KiB by itself, so this allocator sees a few
 * hundred blocks of about 4 KiB and some large ones. What matters is waste: under a hard limit of
 * 2 MiB the last page must be as usable as the first.
 *
 *   block:    | header u32: stride, FREE, PREVIOUS_FREE | payload ... |
 *   free:     | header | next link | previous link | ... | stride u32 |
 *
 * A stride is the distance from one header to the next, a multiple of 8. Headers lie at 4 modulo 8,
 * payloads at 0 modulo 8. The stride at the end of a free block lets its right neighbour find it;
 * a used block lends those four bytes to its owner. The heap ends in a used header of stride 0.
 *
 * Free blocks hang in bins: one bin for each stride below 128, then 16 bins to each doubling. Two
 * levels of bitmaps find the first bin whose every block fits. Before the memory grows, the bin
 * just below is searched too; so growing is the last resort, and it asks for the pages of the one
 * request, no more.
 *
 * free() traps on a misaligned payload and on a block that is marked free: a guest that has lost
 * its heap must not go on. One thread by construction: the module has no shared memory.
 */
#include "heap.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FREE 1u
#define PREVIOUS_FREE 2u
#define FLAGS 7u

#define PAGE_BYTES 65536u
#define HEADER_BYTES 4u
#define SMALLEST_STRIDE 16u
#define LARGEST_REQUEST (1u << 26)

#define BINS_LOG2 4
#define BINS (1u << BINS_LOG2)
#define SMALL_LOG2 7 /* strides below this power of two have a bin of their own */
#define ROWS (26 - SMALL_LOG2 + 3)

struct block {
    uint32_t header;
    struct block *next, *previous; /* only while free */
};

struct bin {
    uint32_t row, column;
};

static struct heap_figures own_figures;
struct heap_figures *heap_figures = &own_figures;
uint32_t heap_refusals;

static struct block *bins[ROWS][BINS];
static uint32_t row_map, column_maps[ROWS];
static struct block *end_block; /* the used header of stride 0; NULL before the first request */

extern unsigned char __heap_base; /* from the linker: the first byte after data and stack */

static inline uint32_t stride_of(const struct block *block)
{
    return block->header & ~FLAGS;
}

static inline struct block *at(struct block *block, uint32_t offset)
{
    return (struct block *)((char *)block + offset);
}

static inline struct block *right_of(struct block *block)
{
    return at(block, stride_of(block));
}

static inline struct block *left_of(struct block *block)
{
    return (struct block *)((char *)block - ((uint32_t *)block)[-1]);
}

static inline void *payload_of(struct block *block)
{
    return (char *)block + HEADER_BYTES;
}

static inline struct block *block_of(void *payload)
{
    struct block *block = (struct block *)((char *)payload - HEADER_BYTES);
    if (((uintptr_t)payload & 7) || (block->header & FREE))
        __builtin_trap();
    return block;
}

static inline uint32_t stride_for(size_t bytes)
{
    uint32_t stride = ((uint32_t)bytes + HEADER_BYTES + 7) & ~7u;
    return stride < SMALLEST_STRIDE ? SMALLEST_STRIDE : stride;
}

static inline uint32_t log2_of(uint32_t n)
{
    return 31 - (uint32_t)__builtin_clz(n);
}

static inline struct bin bin_of(uint32_t stride)
{
    if (stride < 1u << SMALL_LOG2)
        return (struct bin){0, stride >> 3};
    uint32_t log2 = log2_of(stride);
    return (struct bin){log2 - SMALL_LOG2 + 1, (stride >> (log2 - BINS_LOG2)) & (BINS - 1)};
}

static void put_in_bin(struct block *block)
{
    struct bin bin = bin_of(stride_of(block));
    struct block *head = bins[bin.row][bin.column];
    block->next = head;
    block->previous = NULL;
    if (head)
        head->previous = block;
    bins[bin.row][bin.column] = block;
    row_map |= 1u << bin.row;
    column_maps[bin.row] |= 1u << bin.column;
}

static void take_from_bin(struct block *block)
{
    struct bin bin = bin_of(stride_of(block));
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous) {
        block->previous->next = block->next;
        return;
    }
    bins[bin.row][bin.column] = block->next;
    if (block->next)
        return;
    column_maps[bin.row] &= ~(1u << bin.column);
    if (!column_maps[bin.row])
        row_map &= ~(1u << bin.row);
}

/* Make [block, block + stride) one free block, joined with free neighbours, and put it in a bin.
 * The caller says whether the left neighbour is free by the flag in block->header. */
static void release(struct block *block, uint32_t stride)
{
    struct block *right = at(block, stride);
    if (right->header & FREE) {
        take_from_bin(right);
        stride += stride_of(right);
        right = at(block, stride);
    }
    if (block->header & PREVIOUS_FREE) {
        block = left_of(block);
        take_from_bin(block);
        stride += stride_of(block);
    }
    block->header = stride | FREE; /* two free blocks never touch */
    ((uint32_t *)right)[-1] = stride;
    right->header |= PREVIOUS_FREE;
    put_in_bin(block);
}

/* Mark a block that is in no bin as used with the given stride; give back what is left over. */
static void occupy(struct block *block, uint32_t stride)
{
    uint32_t whole = stride_of(block);
    uint32_t left_free = block->header & PREVIOUS_FREE;
    right_of(block)->header &= ~PREVIOUS_FREE;
    if (whole - stride < SMALLEST_STRIDE) {
        block->header = whole | left_free;
        return;
    }
    block->header = stride | left_free;
    struct block *rest = at(block, stride);
    rest->header = 0;
    release(rest, whole - stride);
}

static bool start_heap(void)
{
    uintptr_t first = ((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7;
    uintptr_t end = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (end < first + 64) {
        size_t pages = (first + 64 - end + PAGE_BYTES - 1) / PAGE_BYTES;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX)
            return false;
        end += pages * PAGE_BYTES;
    }
    struct block *block = (struct block *)(first + HEADER_BYTES);
    end_block = (struct block *)(end - HEADER_BYTES);
    end_block->header = 0;
    block->header = 0;
    release(block, (uint32_t)((uintptr_t)end_block - (uintptr_t)block));
    return true;
}

/* Add the pages that one block of this stride needs at the end of the heap. */
static bool grow(uint32_t stride)
{
    if (!end_block)
        return start_heap();
    uint32_t have = 0;
    if (end_block->header & PREVIOUS_FREE)
        have = stride_of(left_of(end_block));
    uint32_t pages = (stride - have + PAGE_BYTES - 1) / PAGE_BYTES;
    if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX)
        return false;
    struct block *block = end_block;
    end_block = at(block, pages * PAGE_BYTES);
    end_block->header = 0;
    release(block, pages * PAGE_BYTES);
    return true;
}

/* The first block of the first bin whose every block fits, or NULL. */
static struct block *find_in_larger_bins(uint32_t stride)
{
    uint32_t rounded = stride;
    if (stride >= 1u << SMALL_LOG2)
        rounded += (1u << (log2_of(stride) - BINS_LOG2)) - 1;
    struct bin bin = bin_of(rounded);
    uint32_t columns = column_maps[bin.row] & (~0u << bin.column);
    if (!columns) {
        uint32_t rows = row_map & (~0u << (bin.row + 1));
        if (!rows)
            return NULL;
        bin.row = (uint32_t)__builtin_ctz(rows);
        columns = column_maps[bin.row];
    }
    return bins[bin.row][__builtin_ctz(columns)];
}

/* A block that fits from the bin in which some do and some do not, or NULL. */
static struct block *find_in_own_bin(uint32_t stride)
{
    struct bin bin = bin_of(stride);
    struct block *block = bins[bin.row][bin.column];
    while (block && stride_of(block) < stride)
        block = block->next;
    return block;
}

static void count(uint32_t added, uint32_t removed)
{
    heap_figures->used_bytes += added - removed;
    if (heap_figures->used_bytes > heap_figures->peak_bytes)
        heap_figures->peak_bytes = heap_figures->used_bytes;
}

static void *refuse(void)
{
    heap_refusals++;
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t bytes)
{
    if (bytes > LARGEST_REQUEST)
        return refuse();
    uint32_t stride = stride_for(bytes);
    struct block *block;
    while (!(block = find_in_larger_bins(stride)) && !(block = find_in_own_bin(stride)))
        if (!grow(stride))
            return refuse();
    take_from_bin(block);
    occupy(block, stride);
    count(stride_of(block), 0);
    return payload_of(block);
}

void free(void *payload)
{
    if (!payload)
        return;
    struct block *block = block_of(payload);
    count(0, stride_of(block));
    release(block, stride_of(block));
}

void *calloc(size_t items, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(items, size, &bytes))
        return refuse();
    void *payload = malloc(bytes);
    return payload ? memset(payload, 0, bytes) : NULL;
}

/* Widen a used block into its free right neighbour; at the end of the heap, grow first. */
static bool widen(struct block *block, uint32_t stride)
{
    uint32_t whole = stride_of(block);
    struct block *right = right_of(block);
    uint32_t free_right = right->header & FREE ? stride_of(right) : 0;
    if (whole + free_right < stride) {
        if (at(right, free_right) != end_block || !grow(stride - whole))
            return false;
        right = right_of(block);
    }
    take_from_bin(right);
    block->header += stride_of(right);
    return true;
}

void *realloc(void *payload, size_t bytes)
{
    if (!payload)
        return malloc(bytes);
    if (bytes > LARGEST_REQUEST)
        return refuse();
    struct block *block = block_of(payload);
    uint32_t stride = stride_for(bytes), before = stride_of(block);
    if (stride <= before || widen(block, stride)) {
        occupy(block, stride);
        count(stride_of(block), before);
        return payload;
    }
    void *moved = malloc(bytes);
    if (!moved)
        return NULL;
    memcpy(moved, payload, before - HEADER_BYTES);
    free(payload);
    return moved;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (alignment & (alignment - 1) || alignment > PAGE_BYTES || bytes > LARGEST_REQUEST)
        return refuse();
    if (alignment <= 8)
        return malloc(bytes);
    char *payload = malloc(bytes + alignment + SMALLEST_STRIDE);
    if (!payload)
        return NULL;
    struct block *block = block_of(payload);
    uint32_t before = stride_of(block);
    if ((uintptr_t)payload & (alignment - 1)) {
        /* The bytes in front become a free block, so they must be large enough for one. */
        uintptr_t mask = alignment - 1;
        uintptr_t aligned = ((uintptr_t)payload + SMALLEST_STRIDE + mask) & ~mask;
        struct block *front = block;
        uint32_t cut = (uint32_t)(aligned - (uintptr_t)payload);
        block = at(front, cut);
        block->header = before - cut;
        release(front, cut);
    }
    occupy(block, stride_for(bytes));
    count(stride_of(block), before);
    return payload_of(block);
}

int posix_memalign(void **payload, size_t alignment, size_t bytes)
{
    void *aligned = aligned_alloc(alignment, bytes);
    if (!aligned)
        return ENOMEM;
    *payload = aligned;
    return 0;
}

size_t malloc_usable_size(void *payload)
{
    return payload ? stride_of(block_of(payload)) - HEADER_BYTES : 0;
}

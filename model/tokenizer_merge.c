/* tokenizer_merge.c - neighbours join, the best pair first, until none can.
 *
 * BPE (Sennrich et al. 2016, arXiv:1508.07909): among all neighbouring pairs the one of the lowest key is joined,
 * the leftmost of equals; then its new neighbours are looked at. A heap holds the candidates, so a text of n
 * symbols takes O(n log n), whatever the file's merges are. A joined pair's other candidates stay in the heap and
 * are recognised as stale by their length: a symbol only ever grows. */
#include "model/tokenizer_parts.h"

static bool before(const mx_join *a, const mx_join *b) {
    return a->key != b->key ? a->key < b->key : a->left < b->left;
}

static void push(mx_encoding *e, mx_join join) {
    size_t i = e->heap_count++;

    while (i > 0 && before(&join, &e->heap[(i - 1) / 2])) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = join;
}

static mx_join pop(mx_encoding *e) {
    mx_join best = e->heap[0], last = e->heap[--e->heap_count];
    size_t i = 0;

    for (size_t child = 1; child < e->heap_count; child = 2 * i + 1) {
        if (child + 1 < e->heap_count && before(&e->heap[child + 1], &e->heap[child])) {
            child++;
        }
        if (!before(&e->heap[child], &last)) {
            break;
        }
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return best;
}

static void consider(mx_encoding *e, const char *text, int32_t left, int32_t right, mx_join_find *find) {
    mx_join join = { .left = left, .right = right };

    if (left < 0 || right < 0) {
        return;
    }
    if (find(e->t, text, &e->symbol[left], &e->symbol[right], &join)) {
        join.length = e->symbol[left].length + e->symbol[right].length;
        push(e, join);
    }
}

mx_code mx_merge_symbols(mx_encoding *e, const char *text, mx_join_find *find) {
    /* n - 1 first candidates, and each join (at most n - 1) takes one out and puts at most two in. */
    MX_TRY(mx_encoding_grow(&e->heap, &e->heap_capacity, 2 * e->symbol_count, sizeof *e->heap, e->st));
    e->heap_count = 0;
    for (size_t i = 1; i < e->symbol_count; i++) {
        consider(e, text, (int32_t)i - 1, (int32_t)i, find);
    }
    while (e->heap_count) {
        mx_join join = pop(e);
        mx_symbol *left = &e->symbol[join.left], *right = &e->symbol[join.right];

        if (left->length == 0 || right->length == 0 || left->next != join.right ||
            left->length + right->length != join.length) {
            continue;
        }
        left->length = join.length;
        left->id = join.id;
        left->next = right->next;
        if (right->next >= 0) {
            e->symbol[right->next].previous = join.left;
        }
        right->length = 0;
        consider(e, text, left->previous, join.left, find);
        consider(e, text, join.left, left->next, find);
    }
    return MX_OK;
}

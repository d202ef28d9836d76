/* warp.cc - what CUDA threads do with one another: barriers, warp functions, tensor-core products, copies on their way. */
#include "kernels/cuda/shim/machine.h"

namespace shim {

int barrier(int predicate, place at) {
    worker *w = mine;
    fiber *me = w->running;
    unsigned parity = w->generation & 1;

    set_place(&me->at, at);
    if (w->returned > 0) {
        die("reaches the barrier at %s:%d after %d threads of its block have returned", at.file, at.line, w->returned);
    }
    if (w->arrived == 0) {
        w->barrier_at = at;
    } else if (at.line != w->barrier_at.line || (at.file != w->barrier_at.file && strcmp(at.file, w->barrier_at.file) != 0)) {
        die("divergent barrier: waits at %s:%d, others at %s:%d", at.file, at.line, w->barrier_at.file, w->barrier_at.line);
    }
    w->sums[parity] += predicate;
    release(&w->order[parity]);
    if (++w->arrived < w->threads) {
        wait(w, AT_BARRIER);
        w = mine;
    } else {
        w->arrived = 0;
        w->sums[++w->generation & 1] = 0; /* of the barrier before: everybody has read it, having arrived here */
        for (int i = 0; i < w->threads; i++) {
            fiber *f = &w->fibers[(size_t)i];

            if (f->state == AT_BARRIER) {
                f->state = READY;
                put_last(w, f);
            }
        }
        if (now.shuffled) {
            yield();
        }
    }
    acquire(&w->order[parity]);
    return w->sums[parity];
}

namespace {

float bf16_float(uint32_t bits) {
    float f;

    bits <<= 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* d = a b + c of a whole warp (portable.h tells where the values lie): products and sums in f32, k upwards. */
void multiply(const warp *its) {
    float a[16][16], b[16][8], c[16][8];

    for (int lane = 0; lane < WARP; lane++) {
        const uint32_t *x = static_cast<const uint32_t *>(its->a[lane]), *y = static_cast<const uint32_t *>(its->b[lane]);
        const float *z = static_cast<const float *>(its->c[lane]);
        int g = lane / 4, t = lane % 4;

        for (int i = 0; i < 4; i++) {
            int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);

            a[row][column] = bf16_float(x[i] & 0xffffu);
            a[row][column + 1] = bf16_float(x[i] >> 16);
            c[g + 8 * (i / 2)][2 * t + i % 2] = z[i];
        }
        for (int i = 0; i < 2; i++) {
            b[2 * t + 8 * i][g] = bf16_float(y[i] & 0xffffu);
            b[2 * t + 8 * i + 1][g] = bf16_float(y[i] >> 16);
        }
    }
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) {
                c[row][column] += a[row][k] * b[k][column];
            }
        }
    }
    for (int lane = 0; lane < WARP; lane++) {
        float *d = static_cast<float *>(its->d[lane]);

        for (int i = 0; i < 4; i++) {
            d[i] = c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
        }
    }
}

/* Lane l brings row l % 8 of matrix l / 8, eight values of 16 bits. */
void load_matrices(const warp *its) {
    uint16_t m[4][8][8];

    for (int lane = 0; lane < WARP; lane++) {
        memcpy(m[lane / 8][lane % 8], its->a[lane], 16);
    }
    for (int lane = 0; lane < WARP; lane++) {
        uint32_t *r = static_cast<uint32_t *>(its->d[lane]);
        int row = lane / 4, column = 2 * (lane % 4);

        for (int i = 0; i < 4; i++) {
            uint16_t low = its->source[lane] ? m[i][column][row] : m[i][row][column];
            uint16_t high = its->source[lane] ? m[i][column + 1][row] : m[i][row][column + 1];

            r[i] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

/* Everybody has arrived: what each takes away, worked out at once. */
void complete(warp_op op, unsigned mask, warp *its) {
    uint64_t ballot = 0;

    for (int i = 0; op == OP_BALLOT && i < WARP; i++) {
        ballot |= mask >> i & 1 && its->brings[i] ? 1u << i : 0;
    }
    for (int i = 0; (op == OP_SHUFFLE || op == OP_BALLOT || op == OP_MATCH) && i < WARP; i++) {
        if (!(mask >> i & 1)) {
            continue;
        }
        if (op == OP_SHUFFLE) {
            its->takes[i] = mask >> its->source[i] & 1 ? its->brings[its->source[i]] : ~(uint64_t)0;
        } else if (op == OP_BALLOT) {
            its->takes[i] = ballot;
        } else {
            its->takes[i] = 0;
            for (int j = 0; j < WARP; j++) {
                its->takes[i] |= mask >> j & 1 && its->brings[j] == its->brings[i] ? 1u << j : 0;
            }
        }
    }
    if (op == OP_MMA) {
        multiply(its);
    } else if (op == OP_LDMATRIX) {
        load_matrices(its);
    }
}

/* Why a lane cannot be let into a warp function. */
[[noreturn]] void refuse_meeting(warp_op op, unsigned mask, const fiber *me, const warp *its, const meeting *m, place at) {
    if (!(mask >> me->lane & 1)) {
        die("%s at %s:%d: lane %d is not in its own mask %08x", OP_NAMES[op], at.file, at.line, me->lane, mask);
    }
    if (mask & its->returned) {
        die("%s at %s:%d names lanes %08x, which have returned", OP_NAMES[op], at.file, at.line, mask & its->returned);
    }
    if (op >= OP_MMA && its->exists != 0xffffffffu) {
        die("%s at %s:%d in a warp that is not whole", OP_NAMES[op], at.file, at.line);
    }
    die("divergent warp: %s with mask %08x at %s:%d, while lanes %08x are in %s with the same mask at %s:%d", OP_NAMES[op], mask,
        at.file, at.line, m->arrived, OP_NAMES[m->op], m->at.file, m->at.line);
}

/* The lanes of that mask that have come so far, or a free place for them. Lanes 0..11 may meet while the others wait for the
 * whole warp. */
inline meeting *meeting_of(warp *its, unsigned mask) {
    meeting *free = nullptr;

    for (int i = 0; i < WARP; i++) {
        meeting *m = &its->met[i];

        if (m->arrived && m->mask == mask) {
            return m;
        }
        free = free || m->arrived ? free : m;
        if (!its->waiting) {
            break;
        }
    }
    return free; /* every meeting holds a lane that waits, and the one that asks does not */
}

/* Until all lanes of `mask` have come, the running one with what it brings; the last to come does the work for all. */
inline __attribute__((always_inline)) void meet(warp_op op, unsigned mask, worker *w, fiber *me, warp *its, place at) {
    meeting *m = meeting_of(its, mask & its->exists);
    unsigned bit = 1u << me->lane, parity;

    bool odd = !(mask & bit) || (mask & its->returned) || (op >= OP_MMA && its->exists != 0xffffffffu) ||
               (m->arrived && m->op != op);

    if (__builtin_expect(odd, 0)) {
        refuse_meeting(op, mask, me, its, m, at);
    }
    mask &= its->exists;
    set_place(&me->at, at);
    set_place(&m->at, at);
    m->op = op;
    m->mask = mask;
    m->arrived |= bit;
    parity = m->generation & 1;
    if (op == OP_SYNC) {
        release(&m->order[parity]);
    }
    if (m->arrived != mask) {
        its->waiting |= bit;
        wait(w, IN_WARP);
    } else {
        fiber *lanes = me - me->lane;

        m->arrived = 0;
        m->generation++;
        its->waiting &= ~mask;
        complete(op, mask, its);
        for (unsigned others = mask & ~bit; others;) { /* the warp stays together: its lanes go before other warps' */
            int last = 31 - __builtin_clz(others);

            others &= ~(1u << last);
            lanes[last].state = READY;
            put_first(w, &lanes[last]);
        }
        if (now.shuffled) {
            yield();
        }
    }
    if (op == OP_SYNC) {
        acquire(&m->order[parity]);
    }
}

warp *warp_of(worker *w, const fiber *f) {
    return &w->warps[f->number / WARP];
}

}

void warp_wait(unsigned mask, place at) {
    worker *w = mine;

    meet(OP_SYNC, mask, w, w->running, warp_of(w, w->running), at);
}
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = value;
    its->source[me->lane] = source & 31;
    meet(OP_SHUFFLE, mask, w, me, its, at);
    return its->takes[me->lane];
}
unsigned warp_ballot(unsigned mask, bool predicate, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = predicate;
    meet(OP_BALLOT, mask, w, me, its, at);
    return (unsigned)its->takes[me->lane];
}
unsigned warp_match(unsigned mask, uint64_t value, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->brings[me->lane] = value;
    meet(OP_MATCH, mask, w, me, its, at);
    return (unsigned)its->takes[me->lane];
}
void warp_mma_bf16(float *d, const uint32_t *a, const uint32_t *b, const float *c, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->d[me->lane] = d;
    its->a[me->lane] = a;
    its->b[me->lane] = b;
    its->c[me->lane] = c;
    meet(OP_MMA, 0xffffffffu, w, me, its, at);
}
void warp_ldmatrix(uint32_t *r, const uint4 *row, bool transposed, place at) {
    worker *w = mine;
    fiber *me = w->running;
    warp *its = warp_of(w, me);

    its->d[me->lane] = r;
    its->a[me->lane] = row;
    its->source[me->lane] = transposed;
    meet(OP_LDMATRIX, 0xffffffffu, w, me, its, at);
}

void yield() {
    worker *w = mine;
    fiber *me = w->running;

    if (w->head != w->tail && draw(w) % 4 == 0) {
        put_last(w, me);
        wait(w, READY);
    }
}

char fence_order;
void fence() {
    acquire(&fence_order);
    release(&fence_order);
}

static copies *its_copies() {
    worker *w = mine;

    w->copied = true;
    return &w->copying[(size_t)w->running->number];
}
void copy_issue(copy c) {
    copies *its = its_copies();

    c.group = its->group;
    its->issued.push_back(c);
}
void copy_commit() {
    its_copies()->group++;
}
const copy *copy_landing(int pending) {
    copies *its = its_copies();

    if (its->landed < its->issued.size() && its->issued[its->landed].group + (unsigned)pending < its->group) {
        return &its->issued[its->landed++];
    }
    if (its->landed == its->issued.size()) {
        its->issued.clear();
        its->landed = 0;
    }
    return nullptr;
}

}

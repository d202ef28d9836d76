/* linears_input.cu - the last step of the linears' backward pass when there is dropout: dx = (dx +) sum + mask . (p A), in bf16.
 *
 * p A is as large as dx and its product thin (the ranks): by a product of its own it would be written and read through memory
 * as f32, 8 bytes for each value where the rest of this pass moves 6. Here 64 x 64 of it live and die in registers: mma.sync over
 * the ranks, 32 at a time, then the mask, the sum and the rounding. A warp has 16 rows; its accumulators' eight columns of eight
 * are each one draw of noise for a row, drawn by one lane of the four that need it. */
#include "kernels/cuda/linears.h"

enum { ROWS = 64, COLUMNS = 64, DEPTH = 32, WARPS = ROWS / 16, THREADS = 32 * WARPS, PAD = 8 /* ldmatrix without bank conflicts */ };

struct input_call {
    mx_bf16 *dx;
    const float *sum;
    const mx_bf16 *p, *a; /* (rows, width; p_ld), (width, in) */
    const int32_t *position, *question;
    int64_t rows, in, width, p_ld;
    mx_noise_key noise;
    int32_t adds, pairs; /* pairs: dx may be read and written four bytes at a time */
};

/* tile[lines][width] = from[line.., column..], zeros outside; 16 bytes a thread at a time. */
template <int LINES, int WIDTH>
static __device__ void load_tile(mx_bf16 (*tile)[WIDTH + PAD], const mx_bf16 *from, int64_t ld, int64_t line, int64_t lines, int64_t column,
                                 int64_t columns) {
    for (int i = (int)threadIdx.x; i < LINES * WIDTH / 8; i += THREADS) {
        int l = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
        bool inside = line + l < lines && column + c < columns; /* columns is a multiple of 8 */

        mx_cp_async16(&tile[l][c], inside ? from + (line + l) * ld + column + c : from, inside ? 16 : 0);
    }
}

/* sum[j] += the warp's 16 rows of p times the j-th eight columns of A, over DEPTH ranks. */
static __device__ void multiply(float sum[8][4], mx_bf16 (*p)[DEPTH + PAD], mx_bf16 (*a)[COLUMNS + PAD]) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, line = lane % 16, half = lane / 16 * 8;

#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t left[4], right[4];

        mx_ldmatrix_x4(left, &p[16 * warp + line][k + half]);
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            mx_ldmatrix_x4_transposed(right, &a[k + line][8 * j + half]);
            mx_mma_bf16(sum[j], left, right, sum[j]);
            mx_mma_bf16(sum[j + 1], left, right + 2, sum[j + 1]);
        }
    }
}

/* Two neighbours of a row: masked, summed, rounded. */
static __device__ void put(const input_call &x, int64_t row, int64_t column, float low, float high, uint32_t kept) {
    int64_t at = row * x.in + column; /* even, as in is */
    float2 sum = *reinterpret_cast<const float2 *>(x.sum + at);

    sum.x += kept & 1u ? low : 0.0f;
    sum.y += kept & 2u ? high : 0.0f;
    if (x.pairs) {
        uint32_t *to = reinterpret_cast<uint32_t *>(x.dx + at);

        if (x.adds) {
            uint32_t old = *to;
            mx_bf16 first = { (uint16_t)(old & 0xffffu) }, second = { (uint16_t)(old >> 16) };

            sum.x += mx_float(first);
            sum.y += mx_float(second);
        }
        *to = mx_bf16_pair(sum.x, sum.y);
        return;
    }
    x.dx[at] = mx_rounded<mx_bf16>(sum.x + (x.adds ? mx_float(x.dx[at]) : 0.0f));
    x.dx[at + 1] = mx_rounded<mx_bf16>(sum.y + (x.adds ? mx_float(x.dx[at + 1]) : 0.0f));
}

static __global__ void __launch_bounds__(THREADS) input_kernel(input_call x) {
    __shared__ __align__(16) mx_bf16 p[ROWS][DEPTH + PAD], a[DEPTH][COLUMNS + PAD];
    int64_t tiles = (x.in + COLUMNS - 1) / COLUMNS, row = blockIdx.x / tiles * ROWS, column = blockIdx.x % tiles * COLUMNS;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float sum[8][4] = {};

    for (int64_t k = 0; k < x.width; k += DEPTH) {
        load_tile<ROWS, DEPTH>(p, x.p, x.p_ld, row, x.rows, k, x.width);
        load_tile<DEPTH, COLUMNS>(a, x.a, x.in, k, x.width, column, x.in);
        mx_cp_async_commit();
        mx_cp_async_wait<0>();
        __syncthreads();
        multiply(sum, p, a);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int64_t r = row + 16 * warp + g + 8 * half;
        bool inside = r < x.rows;
        uint32_t drawn[2] = {};

#pragma unroll
        for (int i = 0; i < 2; i++) { /* of the four lanes of a row, lane t draws for eights t and t + 4 */
            int64_t first = column + 8 * (t + 4 * i);

            if (inside && first < x.in) {
                drawn[i] = mx_noise_kept8(x.noise, (uint32_t)(first / 8), x.position[r], x.question[r]);
            }
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t kept = __shfl_sync(MX_WARP, drawn[j / 4], 4 * g + j % 4) >> 2 * t;

            if (inside && column + 8 * j < x.in) {
                put(x, r, column + 8 * j + 2 * t, sum[j][2 * half], sum[j][2 * half + 1], kept);
            }
        }
    }
}

void mx_rows_masked_dx(mx_cuda *c, const mx_linears *l, int64_t first, int64_t rows, const float *sum, const void *p, int64_t p_ld,
                       const void *a) {
    input_call x = {};
    int64_t tiles = (rows + ROWS - 1) / ROWS * ((l->in + COLUMNS - 1) / COLUMNS);

    assert(mx_linears_masks_inside(c, l));
    x.dx = static_cast<mx_bf16 *>(l->dx.data) + first * l->in;
    x.sum = sum;
    x.p = static_cast<const mx_bf16 *>(p) + first * p_ld;
    x.a = static_cast<const mx_bf16 *>(a);
    x.position = l->rows->position + first;
    x.question = l->rows->question + first;
    x.rows = rows;
    x.in = l->in;
    x.width = mx_linears_width(l);
    x.p_ld = p_ld;
    x.noise = mx_noise_of(&l->dropout, 0);
    x.adds = l->dx_adds;
    x.pairs = reinterpret_cast<uintptr_t>(x.dx) % 4 == 0;
    mx_launch(c, "masked dx", input_kernel, dim3((unsigned)tiles), dim3(THREADS), 0, x);
}

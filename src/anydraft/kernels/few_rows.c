/* Products of a few rows with a weight in bfloat16, for CPUs with AVX-512 BF16.
 *
 * out = rows * weight^T + bias, where reading the weight from memory is what takes the time. The weight lies in blocks
 * of 32 outputs, in each of which the numbers follow each other as they are read: [outs / 32][in / 2][32][2], with
 * zeros for outputs beyond the last. Up to 12 rows are multiplied in one reading.
 *
 * Sums are made as oneDNN makes them: `chunk` inputs by pairs into a number that begins at zero, and those numbers one
 * after the other. So a product is the same bit by bit, where the chunk is oneDNN's (kernels/streamed.py finds it).
 */
#include <immintrin.h>
#include <stdint.h>

#define WIDTH 32 /* outputs of a block: two vectors */
#define TILE 12  /* rows at once: 24 sums, of 32 registers */
#define PANEL 48 /* rows whose sums are kept while a block is read */

typedef int __attribute__((may_alias, aligned(2))) pair; /* two numbers that follow each other */

typedef struct {
    const uint16_t *weight, *rows, *bias; /* bias may be null */
    uint16_t *out;
    long count, stride, in, outs, chunk; /* stride: numbers from one row to the next */
    int (*thread)(void), (*threads)(void);
} product;

typedef void (*fork_join)(void (*work)(void *), void *argument, unsigned threads, unsigned flags);

/* n rows by the inputs of a chunk: w (pairs, 32, 2), x (n, stride) from the chunk's first input on. */
static inline __attribute__((always_inline)) void
tile(const int n, const uint16_t *w, const uint16_t *x, long stride, long pairs, float *sums, int first)
{
    __m512 low[TILE], high[TILE];
    for (int i = 0; i < n; i++) low[i] = high[i] = _mm512_setzero_ps();
    for (long k = 0; k < pairs; k++) {
        const __m512bh a = (__m512bh)_mm512_loadu_si512(w + k * 2 * WIDTH);
        const __m512bh b = (__m512bh)_mm512_loadu_si512(w + k * 2 * WIDTH + WIDTH);
        for (int i = 0; i < n; i++) {
            const __m512bh both = (__m512bh)_mm512_set1_epi32(*(const pair *)(x + i * stride + 2 * k));
            low[i] = _mm512_dpbf16_ps(low[i], a, both);
            high[i] = _mm512_dpbf16_ps(high[i], b, both);
        }
    }
    for (int i = 0; i < n; i++) {
        float *to = sums + i * WIDTH;
        if (!first) {
            low[i] = _mm512_add_ps(_mm512_loadu_ps(to), low[i]);
            high[i] = _mm512_add_ps(_mm512_loadu_ps(to + 16), high[i]);
        }
        _mm512_storeu_ps(to, low[i]);
        _mm512_storeu_ps(to + 16, high[i]);
    }
}

static void tiles(int n, const uint16_t *w, const uint16_t *x, long stride, long pairs, float *sums, int first)
{
    switch (n) {
#define ROWS(N) case N: tile(N, w, x, stride, pairs, sums, first); break;
    ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
    }
}

static void write_out(const product *p, long block, long row, const float *sums)
{
    const long at = block * WIDTH, left = p->outs - at;
    for (int half = 0; half < 2; half++) {
        const long here = left - 16 * half;
        if (here <= 0) return;
        const __mmask16 mask = here >= 16 ? 0xffff : (__mmask16)((1u << here) - 1);
        __m512 sum = _mm512_loadu_ps(sums + 16 * half);
        if (p->bias) {
            const __m256i bias = _mm256_maskz_loadu_epi16(mask, p->bias + at + 16 * half);
            sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bias), 16)));
        }
        _mm256_mask_storeu_epi16(p->out + row * p->outs + at + 16 * half, mask, (__m256i)_mm512_cvtneps_pbh(sum));
    }
}

static void block(const product *p, long b)
{
    float sums[PANEL * WIDTH];
    const uint16_t *w = p->weight + b * WIDTH * p->in;
    for (long from = 0; from < p->count; from += PANEL) {
        const long here = p->count - from < PANEL ? p->count - from : PANEL;
        const long parts = (here + TILE - 1) / TILE;
        for (long k = 0; k < p->in; k += p->chunk) {
            const long pairs = (p->in - k < p->chunk ? p->in - k : p->chunk) / 2;
            for (long part = 0; part < parts; part++) {
                const long a = here * part / parts, z = here * (part + 1) / parts; /* equal tiles */
                const uint16_t *x = p->rows + (from + a) * p->stride + k;
                tiles((int)(z - a), w + k * WIDTH, x, p->stride, pairs, sums + a * WIDTH, k == 0);
            }
        }
        for (long r = 0; r < here; r++) write_out(p, b, from + r, sums + r * WIDTH);
    }
}

static void share(void *argument)
{
    const product *p = argument;
    const long blocks = (p->outs + WIDTH - 1) / WIDTH;
    const long me = p->thread(), all = p->threads();
    for (long b = blocks * me / all; b < blocks * (me + 1) / all; b++) block(p, b);
}

/* The three last arguments are GOMP_parallel, omp_get_thread_num and omp_get_num_threads of torch's own OpenMP. */
void multiply(const void *weight, const void *rows, const void *bias, void *out, long count, long stride, long in,
              long outs, long chunk, unsigned threads, void *parallel, void *thread, void *all)
{
    product p = {weight, rows, bias, out, count, stride, in, outs, chunk, (int (*)(void))thread, (int (*)(void))all};
    ((fork_join)parallel)(share, &p, threads, 0);
}

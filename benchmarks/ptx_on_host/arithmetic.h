/* PTX's types, and the operations that C lacks or defines differently. Types have PTX's names. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8, b8;
typedef uint16_t u16, b16, f16; /* an f16 is only stored and converted */
typedef uint32_t u32, b32;
typedef uint64_t u64, b64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;
typedef double f64;
typedef _Bool pred;

static inline f32 f32_of(u32 bits) { f32 x; memcpy(&x, &bits, 4); return x; }
static inline u32 b32_of(f32 x) { u32 bits; memcpy(&bits, &x, 4); return bits; }
static inline f64 f64_of(u64 bits) { f64 x; memcpy(&x, &bits, 8); return x; }
static inline u64 b64_of(f64 x) { u64 bits; memcpy(&bits, &x, 8); return bits; }

static inline f32 half_to_f32(f16 bits) { _Float16 h; memcpy(&h, &bits, 2); return (f32)h; }
static inline f16 f32_to_half(f32 x) { _Float16 h = (_Float16)x; f16 bits; memcpy(&bits, &h, 2); return bits; }

/* .ftz: a subnormal counts as a zero of its sign. */
static inline f32 flushed(f32 x) { return fpclassify(x) == FP_SUBNORMAL ? copysignf(0.0f, x) : x; }

/* If one operand is NaN, the result is the other; -0 is below +0. */
static inline f32 min_f32(f32 a, f32 b) {
  if (isnan(a) || isnan(b)) return isnan(a) ? b : a;
  return a < b || (a == b && signbit(a)) ? a : b;
}
static inline f32 max_f32(f32 a, f32 b) {
  if (isnan(a) || isnan(b)) return isnan(a) ? b : a;
  return a > b || (a == b && !signbit(a)) ? a : b;
}
static inline f32 saturated(f32 x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; } /* NaN is 0 */

static inline f32 fma_rounded(f32 a, f32 b, f32 c, int mode) {
  volatile f32 x = a, y = b, z = c, result;
  fesetround(mode);
  result = fmaf(x, y, z);
  fesetround(FE_TONEAREST);
  return result;
}

/* Float to integer: values outside the range are clamped, NaN gives 0. `end` is the first power of two above it. */
#define TO_INTEGER(T, low, high, end) \
  static inline T to_##T(f32 x) { return isnan(x) ? 0 : x < (f32)(low) ? (low) : x >= end ? (high) : (T)x; }
TO_INTEGER(s32, INT32_MIN, INT32_MAX, 0x1p31f)
TO_INTEGER(u32, 0, UINT32_MAX, 0x1p32f)
TO_INTEGER(s64, INT64_MIN, INT64_MAX, 0x1p63f)
TO_INTEGER(u64, 0, UINT64_MAX, 0x1p64f)

static inline u32 bits_reversed(u32 x) {
  u32 y = 0;
  for (int i = 0; i < 32; i++) y = y << 1 | (x >> i & 1);
  return y;
}

/* bfi and bfe: place and length are modulo 256, and bits above the top bit are cut off. */
static inline u64 ones(u32 length) { return (length & 255) >= 64 ? ~0ull : (1ull << (length & 255)) - 1; }
static inline u64 bits_inserted(u64 a, u64 b, u32 place, u32 length) {
  place &= 255;
  u64 mask = place >= 64 ? 0 : ones(length) << place;
  return (b & ~mask) | (place >= 64 ? 0 : a << place & mask);
}
static inline u64 bits_extracted(u64 a, u32 place, u32 length) {
  place &= 255;
  return place >= 64 ? 0 : a >> place & ones(length);
}

/* PTX does not define a division by zero, and wraps where C would trap. */
#define DIVISION(T)                                                                                        \
  static inline T div_##T(T a, T b) { return b == 0 ? (T)-1 : b == (T)-1 && (T)-1 < 0 ? (T)(0 - (u64)a) : a / b; } \
  static inline T rem_##T(T a, T b) { return b == 0 ? a : b == (T)-1 && (T)-1 < 0 ? 0 : a % b; }
DIVISION(s32) DIVISION(u32) DIVISION(s64) DIVISION(u64)

/* Shifts by the width or more give zeros, or copies of the sign. */
#define BITS(T) (8 * sizeof(T))
#define SHL(T, a, b) ((b) >= BITS(T) ? (T)0 : (T)((u64)(a) << (b)))
#define SHR(T, a, b) ((T)((a) >> ((b) >= BITS(T) ? BITS(T) - 1 : (b))) * (T)((b) < BITS(T) || (T)-1 < 0))

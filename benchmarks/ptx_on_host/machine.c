/* Runs the blocks of one kernel one after another; threads are coroutines, each run until it waits or ends.
 *
 * Compiled once for each kernel; KERNEL is the file of the translated function. A thread that waits at a barrier
 * returns control; when all threads of the block wait, all continue. The time between two barriers is a stretch.
 * Within a stretch a warp's lanes may wait for each other (shuffles, votes, warp barriers): its turn lasts until all
 * of its lanes wait at a barrier of the block or have ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "arithmetic.h"

enum { WARP = 32, STACK_BYTES = 256 * 1024 };
typedef struct {
  u32 x, y, z, wait, vote; /* wait: the barrier it waits at, 0 if none */
  u32 lane, warp_wait, members, gives; /* warp_wait: as wait, for the warp; members: awaited lanes; gives: own value */
  int ended;
  ucontext_t context;
} Thread;

static char failure[256];
/* Of several failures the first is reported. */
#define FAIL(...) do { if (!failure[0]) snprintf(failure, sizeof failure, __VA_ARGS__); } while (0)
static u32 ntid[3], ctaid[3], nctaid[3], ALL, VOTES;
static void **parameters;
static char *shared;
static u64 shared_bytes;
static ucontext_t scheduler;
static u32 *lane_visits, *touched, touches; /* of the running thread, in this stretch */
#define VISIT(block) do { if (!lane_visits[block]++) touched[touches++] = (block); } while (0)

static void wait_for_all(Thread *thread, u32 barrier, pred vote) {
  thread->wait = barrier;
  thread->vote = vote;
  swapcontext(&thread->context, &scheduler);
}

static u32 given[WARP], givers; /* values of the running warp's lanes, and a mask of the lanes that gave one */

static void wait_for_warp(Thread *thread, u32 place, u32 members, u32 gives) {
  thread->warp_wait = place, thread->members = members, thread->gives = gives;
  swapcontext(&thread->context, &scheduler);
}

/* vote.sync: which lanes gave something other than 0. */
static u32 ballot(void) {
  u32 lanes = 0;
  for (u32 i = 0; i < WARP; i++) lanes |= (givers >> i & 1 && given[i]) ? 1u << i : 0;
  return lanes;
}

/* match.any.sync: which lanes gave the same. */
static u32 matches(u32 own) {
  u32 lanes = 0;
  for (u32 i = 0; i < WARP; i++) lanes |= (givers >> i & 1 && given[i] == own) ? 1u << i : 0;
  return lanes;
}

/* redux.sync: the smallest or the largest. */
static u32 reduced_u32(int largest) {
  u32 found = 0, any = 0;
  for (u32 i = 0; i < WARP; i++)
    if (givers >> i & 1 && (!any++ || (largest ? given[i] > found : given[i] < found))) found = given[i];
  return found;
}

static s32 reduced_s32(int largest) {
  s32 found = 0;
  u32 any = 0;
  for (u32 i = 0; i < WARP; i++)
    if (givers >> i & 1 && (!any++ || (largest ? (s32)given[i] > found : (s32)given[i] < found))) found = (s32)given[i];
  return found;
}

/* shfl.sync: the value of another lane, or one's own where that is out of range; limits as PTX packs them. */
static u32 shuffled(Thread *thread, char mode, u32 b, u32 limits, pred *in_range) {
  u32 lane = thread->lane, segment = limits >> 8 & 31, low = lane & segment, high = low | (limits & 31 & ~segment);
  int from = mode == 'u' ? (int)(lane - (b & 31)) : mode == 'd' ? (int)(lane + (b & 31))
             : mode == 'b' ? (int)(lane ^ (b & 31)) : (int)(low | (b & 31 & ~segment));
  *in_range = mode == 'u' ? from >= (int)high : from <= (int)high;
  if (!*in_range) from = (int)lane;
  if (!(givers >> from & 1))
    FAIL("a shuffle reads lane %d, which does not take part", from);
  return given[from];
}

static char *checked(u64 offset, u64 size) {
  if (offset > shared_bytes || size > shared_bytes - offset) {
    FAIL("shared memory of %llu bytes is accessed at %lld",
             (unsigned long long)shared_bytes, (long long)offset);
    return shared + shared_bytes; /* there is space after its end */
  }
  return shared + offset;
}
#define at_global(address, size) (address)
#define at_shared(address, size) checked(address, size)

#include KERNEL

static Thread *threads;
static char *stacks;
static u32 count, *lane_order, *warp_order, *block_order, *warp_visits, *warp_touched;
static u64 dice;

static void run_forever(u32 t) {
  for (;;) {
    kernel(&threads[t]);
    threads[t].ended = 1;
    swapcontext(&threads[t].context, &scheduler);
  }
}

static void make_threads(u32 wanted) {
  free(threads), free(stacks), free(lane_order), free(warp_order);
  count = wanted;
  threads = calloc(count, sizeof *threads);
  lane_order = calloc(count + WARP, sizeof *lane_order), warp_order = calloc(count, sizeof *warp_order);
  stacks = BARRIERS || SHARED_BYTES ? malloc((size_t)count * STACK_BYTES) : NULL;
  for (u32 t = 0; stacks && t < count; t++) {
    getcontext(&threads[t].context);
    threads[t].context.uc_stack.ss_sp = stacks + (size_t)t * STACK_BYTES;
    threads[t].context.uc_stack.ss_size = STACK_BYTES;
    threads[t].context.uc_link = NULL;
    makecontext(&threads[t].context, (void (*)(void))run_forever, 1, t);
  }
}

/* 0..n-1: in order, or shuffled if a seed was given. */
static void draw_order(u32 *order, u32 n) {
  for (u32 i = 0; i < n; i++) {
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17; /* xorshift: stays 0 without a seed */
    u32 j = dice ? dice % (i + 1) : i;
    order[i] = order[j], order[j] = i;
  }
}

/* Releases the lanes of a warp that wait for each other, if all have arrived. Returns whether any waited. */
static int release_lanes(Thread *lane, u32 lanes) {
  u32 place = 0, members = 0;
  givers = 0;
  for (u32 i = 0; i < lanes; i++) {
    if (!lane[i].warp_wait) continue;
    if (place && (lane[i].warp_wait != place || lane[i].members != members))
      FAIL("lanes of one warp wait for each other at different places");
    place = lane[i].warp_wait, members = lane[i].members;
    givers |= 1u << i, given[i] = lane[i].gives, lane[i].warp_wait = 0;
  }
  u32 present = lanes < WARP ? (1u << lanes) - 1 : ~0u;
  if (place && (members & present) != givers)
    FAIL("lanes of a warp wait for others that have ended or wait elsewhere");
  return place && !failure[0];
}

/* Runs every thread of the warp that has not ended until it waits for the block or ends. Returns the warp's weight in
 * this stretch; visits: its visits of each basic block in this stretch. */
static double run_warp(u32 warp, const double *weights, double *visits) {
  memset(visits, 0, BLOCKS * sizeof *visits);
  u32 first = warp * WARP, lanes = count - first < WARP ? count - first : WARP;
  double weight = 0;
  for (u32 i = first; i < first + lanes; i++) threads[i].wait = 0;
  do {
    u32 distinct = 0;
    draw_order(lane_order, lanes);
    for (u32 i = 0; i < lanes; i++) {
      Thread *thread = &threads[first + lane_order[i]];
      if (thread->ended || thread->wait) continue;
      if (stacks) swapcontext(&scheduler, &thread->context);
      else kernel(thread), thread->ended = 1;
      for (; touches; touches--) {
        u32 block = touched[touches - 1], times = lane_visits[block];
        if (!warp_visits[block]) warp_touched[distinct++] = block;
        if (times > warp_visits[block]) warp_visits[block] = times;
        lane_visits[block] = 0;
      }
    }
    for (u32 i = 0; i < distinct; i++) {
      u32 block = warp_touched[i];
      visits[block] += warp_visits[block];
      weight += warp_visits[block] * weights[block];
      warp_visits[block] = 0;
    }
  } while (release_lanes(&threads[first], lanes));
  return weight;
}

/* Runs one block to its end. barriers: their number; chain: the weight of the heaviest warp of each stretch, summed;
 * chain_visits: that warp's visits of each basic block, summed. */
static void run_block(const double *weights, double *visits, double *barriers, double *chain, double *chain_visits) {
  double own[BLOCKS], heaviest_visits[BLOCKS];
  u32 warps = (count + WARP - 1) / WARP;
  for (u32 t = 0; t < count; t++) threads[t].ended = 0, threads[t].wait = threads[t].warp_wait = 0;
  memset(shared, dice ? (int)(dice >> 56) : 0xA5, shared_bytes); /* a pattern: nothing may be read before written */
  for (u32 waiting = count; waiting && !failure[0];) {
    double heaviest = -1;
    u32 ended = 0, wait = 0, votes = 0;
    draw_order(warp_order, warps);
    for (u32 i = 0; i < warps; i++) {
      double weight = run_warp(warp_order[i], weights, own);
      for (u32 b = 0; b < BLOCKS; b++) visits[b] += own[b];
      if (weight > heaviest) heaviest = weight, memcpy(heaviest_visits, own, sizeof own);
    }
    *chain += heaviest;
    for (u32 b = 0; b < BLOCKS; b++) chain_visits[b] += heaviest_visits[b];
    for (u32 t = 0; t < count; t++) {
      ended += threads[t].ended, votes += threads[t].vote;
      if (threads[t].ended) continue;
      if (wait && threads[t].wait != wait)
        FAIL("threads of one block wait at different barriers");
      wait = threads[t].wait;
    }
    waiting = count - ended;
    if (waiting && ended) FAIL("threads wait for others that have ended");
    *barriers += waiting > 0, VOTES = votes;
  }
}

/* Runs one grid. weights and visits: of each basic block, counted by warp; chain_visits: of the block with the longest
 * chain; summary: the most barriers of a block, the longest chain, the sum of the chains. seed 0: everything in order.
 * Returns "" or what went wrong. */
const char *launch(const u32 *grid, const u32 *block, void **given, u64 seed, const double *weights, double *visits,
                   double *chain_visits, double *summary) {
  u32 blocks = grid[0] * grid[1] * grid[2], wanted = block[0] * block[1] * block[2];
  if (count != wanted || failure[0]) make_threads(wanted);
  failure[0] = 0, dice = seed * 0x9E3779B97F4A7C15u, parameters = given, ALL = count, shared_bytes = SHARED_BYTES;
  memcpy(ntid, block, sizeof ntid), memcpy(nctaid, grid, sizeof nctaid);
  for (u32 t = 0; t < count; t++)
    threads[t].x = t % block[0], threads[t].y = t / block[0] % block[1], threads[t].z = t / (block[0] * block[1]),
    threads[t].lane = t % WARP;
  shared = aligned_alloc(64, (SHARED_BYTES + 127) / 64 * 64), block_order = calloc(blocks, sizeof *block_order);
  lane_visits = calloc(BLOCKS, 4), touched = calloc(BLOCKS, 4), touches = 0;
  warp_visits = calloc(BLOCKS, 4), warp_touched = calloc(BLOCKS, 4);
  draw_order(block_order, blocks);
  for (u32 i = 0; i < blocks && !failure[0]; i++) {
    u32 b = block_order[i];
    double barriers = 0, chain = 0, own_chain_visits[BLOCKS] = {0};
    ctaid[0] = b % grid[0], ctaid[1] = b / grid[0] % grid[1], ctaid[2] = b / (grid[0] * grid[1]);
    run_block(weights, visits, &barriers, &chain, own_chain_visits);
    if (barriers > summary[0]) summary[0] = barriers;
    if (chain > summary[1]) {
      summary[1] = chain;
      memcpy(chain_visits, own_chain_visits, sizeof own_chain_visits);
    }
    summary[2] += chain;
  }
  free(shared), free(block_order), free(lane_visits), free(touched), free(warp_visits), free(warp_touched);
  return failure;
}

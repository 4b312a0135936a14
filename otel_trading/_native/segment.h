/* The segment format: the one definition.
 *
 * One memory-mapped file a process.  Everything a reader may see is declared here and nowhere else:
 * otel_trading/_layout.py is generated from this file (tools/segment_layout.py, checked by a test),
 * so the pure backend and the Python reader can not drift from it.
 *
 * Conventions
 *   - little endian, natural alignment, no bit fields, no pointers; every position is a byte offset
 *     from the start of the file, every time is in clock ticks unless its name ends in _ns.
 *   - "owner: X" names the only party that writes the field after the segment is published:
 *     creator (once, before publication), writer (the thread that owns the ring; all writers of a
 *     process are serialised by the GIL where a table is shared), drain (whoever holds the drain
 *     role), control (any process that steers).
 *   - every field that is read while somebody writes it is an aligned 4 or 8 byte word and is loaded
 *     and stored atomically.  Ordering is relaxed unless the comment names an acquire/release pair.
 *   - readers treat the file as hostile: each offset, count and id is checked against the size that
 *     fstat gave before it is used.
 *
 * The parser of tools/segment_layout.py understands what is used below: "#define NAME number",
 * "enum { NAME = number, };" and structs of fixed-width fields and arrays of them.
 */
#ifndef OTEL_TRADING_SEGMENT_H
#define OTEL_TRADING_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

/* "OTELTRD\0" read as a little-endian word. */
#define OT_MAGIC 0x004452544c45544fULL
#define OT_VERSION 2
#define OT_PAGE 4096
#define OT_TIERS 4
#define OT_INLINE_ATTRIBUTES 4
#define OT_RESOURCE_BYTES 3072
#define OT_MAX_RINGS 64
#define OT_MAX_EXTENTS 64
#define OT_EXTENT_ENTRIES 2048
#define OT_MAX_PROBES 4096
#define OT_MAX_INSTRUMENTS 1024
#define OT_SAMPLE_BITS 56
#define OT_MAX_BLOCKS 1024 /* arena blocks of one span that a reader follows, newest first */
#define OT_ORDER_KEY_BYTES 64
#define OT_ORDER_PROBES 16 /* places after its own that an order may be in */
#define OT_NO_LIMIT 0xffffffff
#define OT_NAME_BYTES 4096  /* longest name; a longer one goes to OT_NAME_OTHER */
#define OT_TEXT_BYTES 65536 /* longest text in an arena block; a block is also never more than a quarter of its arena */
#define OT_BLOCK_BYTES 131072 /* longest payload of an arena block */

/* Reserved ids of the name table. */
enum {
    OT_NAME_NONE = 0,
    OT_NAME_OTHER = 1,
    OT_NAME_FIRST = 2,
};

/* Which clock the ticks come from. */
enum {
    OT_CLOCK_MONOTONIC_NS = 0,
    OT_CLOCK_TSC = 1,
    OT_CLOCK_CNTVCT = 2,
};

/* ot_slot.state of an entry of the open-span table; records in a ring use OT_SLOT_SPAN or OT_SLOT_VALUE. */
enum {
    OT_SLOT_FREE = 0,
    OT_SLOT_RESERVED = 1,
    OT_SLOT_OPEN = 2,
    OT_SLOT_SPAN = 3,
    OT_SLOT_VALUE = 4,
};

enum {
    OT_STATUS_UNSET = 0,
    OT_STATUS_OK = 1,
    OT_STATUS_ERROR = 2,
};

/* ot_slot.flags */
enum {
    OT_FLAG_REMOTE_PARENT = 1,
    OT_FLAG_UNSAMPLED = 2,
    OT_FLAG_CANCELLED = 4,
    OT_FLAG_ABANDONED = 8,
    OT_FLAG_INTERRUPTED = 16,
    OT_FLAG_LEAF = 32,
    OT_FLAG_START_UNIX = 64, /* start is Unix ns, as the program gave it, and not ticks */
    OT_FLAG_END_UNIX = 128,  /* the same of end */
};

/* ot_slot.extra */
enum {
    OT_EXTRA_LINE = 1,  /* the second line is valid */
    OT_EXTRA_ARENA = 2, /* the span has an attribute in the arena: all that are set later go there too */
};

/* Type of an attribute's value word.  A span's attributes are what its inline ones and then its arena blocks, oldest
 * first, say: a key that comes again takes the old one's place away and stands at the end. */
enum {
    OT_TYPE_NONE = 0,
    OT_TYPE_BOOL = 1,
    OT_TYPE_INT = 2,
    OT_TYPE_DOUBLE = 3,
    OT_TYPE_NAME = 4,
    OT_TYPE_TEXT = 5,
    OT_TYPE_MESSAGE = 6, /* an OTLP AnyValue message: arrays, maps, bytes, and the empty value */
};

/* ot_block.kind */
enum {
    OT_BLOCK_ATTRIBUTE = 1,  /* of key OT_NAME_OTHER: the payload begins with a uint32 and so many bytes of the key */
    OT_BLOCK_EVENT = 2,      /* the payload is an OTLP Span.Event message */
    OT_BLOCK_LINK = 3,       /* the payload is an OTLP Span.Link message */
    OT_BLOCK_STATUS = 4,     /* the payload is the status' description; the newest holds */
    OT_BLOCK_NAME = 5,       /* the payload is the span's name, in place of its probe's; the newest holds */
    OT_BLOCK_TRACESTATE = 6, /* the payload is the tracestate, where slot.tracestate is 0 */
};

/* ot_order.state */
enum {
    OT_ORDER_SENT = 1,
    OT_ORDER_ACKED = 2,
    OT_ORDER_PARTLY_FILLED = 3,
    OT_ORDER_FILLED = 4,
    OT_ORDER_CANCELLED = 5,
    OT_ORDER_REJECTED = 6,
};

/* ot_order.side */
enum {
    OT_SIDE_NONE = 0,
    OT_SIDE_BUY = 1,
    OT_SIDE_SELL = 2,
};

enum {
    OT_INSTRUMENT_COUNTER = 1,
    OT_INSTRUMENT_GAUGE = 2,
    OT_INSTRUMENT_HISTOGRAM = 3,
};

/* ot_control.switches */
enum {
    OT_SWITCH_RECORD = 1,
    OT_SWITCH_EXPORT = 2,
};

/* ot_control.tier_word: bit 0 is on/off, bits 8 to 63 the sampling threshold (a trace is taken when
 * its 56 random bits are not below it). */
#define OT_TIER_ON 1

/* File offset 0, one page. */
struct ot_header {
    uint64_t magic;   /* owner: creator */
    uint32_t version; /* owner: creator; stored last with release, readers load it with acquire: 0 = not published */
    uint32_t header_bytes;       /* owner: creator; sizeof(struct ot_header) */
    uint64_t file_bytes;         /* owner: writer; grows when a ring is added (release; readers acquire) */
    uint64_t boot_id[2];         /* owner: creator; /proc/sys/kernel/random/boot_id */
    uint64_t process_start;      /* owner: creator; field 22 of /proc/PID/stat, tells a reused pid */
    uint64_t created_ns;         /* owner: creator; Unix time */
    uint64_t published_ns;       /* owner: creator; Unix time, stored before version */
    uint32_t pid;                /* owner: creator */
    uint32_t uid;                /* owner: creator */
    uint32_t clock;              /* owner: creator; OT_CLOCK_* */
    uint32_t backend;            /* owner: creator; 1 native, 2 pure */
    uint64_t control_offset;     /* owner: creator; struct ot_control */
    uint64_t accounts_offset;    /* owner: creator; struct ot_accounts */
    uint64_t rings_offset;       /* owner: creator; struct ot_ring[max_rings] */
    uint64_t probes_offset;      /* owner: creator; struct ot_probe[max_probes] */
    uint64_t instruments_offset; /* owner: creator; struct ot_instrument[max_instruments] */
    uint64_t names_offset;       /* owner: creator; struct ot_name[max_names] */
    uint64_t text_offset;        /* owner: creator; bytes of the names */
    uint64_t text_bytes;         /* owner: creator */
    uint32_t max_rings;          /* owner: creator */
    uint32_t max_probes;         /* owner: creator */
    uint32_t max_instruments;    /* owner: creator */
    uint32_t max_names;          /* owner: creator */
    uint32_t ring_count;         /* owner: writer; release after the ring's header is complete, readers acquire */
    uint32_t probe_count;        /* owner: writer; release/acquire likewise */
    uint32_t instrument_count;   /* owner: writer; release/acquire likewise */
    uint32_t name_count;         /* owner: writer; release/acquire likewise */
    uint64_t text_used;          /* owner: writer; published by name_count */
    uint64_t names_refused;      /* owner: writer; names and values that went to OT_NAME_OTHER */
    uint64_t faults;             /* owner: writer; misuse that was caught (see faults in docs/architecture.md) */
    uint64_t spans_refused[4];   /* owner: writer; spans that found no entry, a tier: recorded and refused at once */
    uint64_t extent_offset[64]; /* owner: writer; struct ot_slot[OT_EXTENT_ENTRIES]: more of the open-span table of … */
    uint8_t extent_ring[64];    /* owner: writer; … this ring; published by extent_count */
    uint32_t extent_count;      /* owner: writer; release/acquire */
    uint32_t max_orders;        /* owner: creator; a power of two */
    uint64_t orders_offset;     /* owner: creator; struct ot_order[max_orders] */
    uint64_t orders_evicted;    /* owner: writer; orders that were still open when another took their place */
    uint32_t attribute_limit;   /* owner: creator; attributes, events and links of a span that count: the newest, */
    uint32_t event_limit;       /* owner: creator; the rest is told as dropped; OT_NO_LIMIT = all */
    uint32_t link_limit;        /* owner: creator */
    uint32_t reserved;
    uint32_t resource_bytes; /* owner: creator */
    uint32_t closed;         /* owner: writer; 1 after an orderly shutdown (release) */
    uint8_t resource[3072];  /* owner: creator; UTF-8 JSON object of resource attributes */
};

/* One page, everything that another process may steer, and what the drain tells of itself. */
struct ot_control {
    uint64_t tier_word[4]; /* owner: control */
    uint64_t switches;     /* owner: control; OT_SWITCH_* */
    uint64_t threshold;    /* owner: control; traces whose 56 random bits are below it are sampled out */
    uint64_t generation;   /* owner: control; +1 after each change */
    uint64_t reserved[9];
    uint64_t heartbeat;    /* owner: drain; ticks at the end of its last pass */
    uint64_t passes;       /* owner: drain */
    uint64_t drain_cpu_ns; /* owner: drain; CPU time of the drain's thread */
    uint64_t
        calibration; /* owner: drain; sequence lock of the four words below: odd while they change (release/acquire) */
    uint64_t anchor_ticks;   /* owner: drain */
    uint64_t anchor_unix_ns; /* owner: drain */
    uint64_t anchor_mono_ns; /* owner: drain; CLOCK_MONOTONIC */
    uint64_t ns_per_tick;    /* owner: drain; bits of a double */
};

/* One page.  recorded = exported + sampled_out + overwritten + refused + pending, a tier. */
struct ot_accounts {
    uint64_t exported[4];        /* owner: drain */
    uint64_t sampled_out[4];     /* owner: drain */
    uint64_t overwritten[4];     /* owner: drain */
    uint64_t refused[4];         /* owner: drain; the exporter or its queue would not take them */
    uint64_t drained[4];         /* owner: drain */
    uint64_t values_drained;     /* owner: drain; histogram observations */
    uint64_t values_overwritten; /* owner: drain */
    uint64_t text_overwritten;   /* owner: drain; arena blocks that were gone */
};

/* A thread's ring, its open-span table and its arena. */
struct ot_ring {
    /* line 0: geometry */
    uint64_t slots_offset;  /* owner: creator; struct ot_slot[capacity] */
    uint64_t open_offset;   /* owner: creator; struct ot_slot[open_capacity] */
    uint64_t arena_offset;  /* owner: creator */
    uint64_t arena_bytes;   /* owner: creator; a power of two */
    uint32_t capacity;      /* owner: creator; a power of two */
    uint32_t open_capacity; /* owner: creator */
    uint64_t thread_id;     /* owner: writer; kernel thread id of the present or last owner */
    uint64_t generation;    /* owner: writer; +1 each time a thread takes the ring */
    uint64_t padding0;
    /* line 1: the writer's */
    uint64_t head;               /* owner: writer; records ever written (release after the slot; drain acquires) */
    uint64_t recorded[4];        /* owner: writer; spans ever written, a tier; head = their sum + values */
    uint64_t values;             /* owner: writer; histogram observations ever written */
    uint64_t arena_head;         /* owner: writer; bytes ever written to the arena */
    uint64_t attributes_dropped; /* owner: writer; those that found no room, and texts that were cut for want of it */
    /* line 2: the drain's */
    uint64_t tail; /* owner: drain; records ever read or found overwritten (release; the writer never waits for it) */
    uint64_t drained[4];     /* owner: drain */
    uint64_t values_drained; /* owner: drain */
    uint64_t backlog_max;    /* owner: drain; longest backlog a pass has met, in records */
    uint64_t padding2;
    /* line 3 */
    uint64_t padding3[8];
};

/* A record, or an entry of the open-span table.  The second line is written only where the span has
 * attributes, an error, or a tracestate, and is read only where `extra` says so. */
struct ot_slot {
    uint64_t
        seq; /* owner: writer; record n: 2n+1 while written, 2n+2 when complete (release; readers acquire, and read it again) */
    uint64_t trace_hi;
    uint64_t trace_lo; /* its low 56 bits are the trace's randomness */
    uint64_t span_id;
    uint64_t parent_id; /* 0 = root */
    uint64_t start;     /* ticks, unless OT_FLAG_START_UNIX */
    uint64_t end;       /* ticks, unless OT_FLAG_END_UNIX */
    uint16_t probe;     /* id of a probe, or of an instrument for OT_SLOT_VALUE */
    uint8_t state;      /* OT_SLOT_* */
    uint8_t status;     /* OT_STATUS_* */
    uint8_t flags;      /* OT_FLAG_* */
    uint8_t count;      /* inline attributes in use */
    uint8_t extra;      /* OT_EXTRA_*; 0: there is no second line */
    uint8_t tier;
    /* second line */
    uint16_t key[4];     /* name ids */
    uint8_t type[4];     /* OT_TYPE_* */
    uint32_t error;      /* name id of the exception's type, 0 = none */
    uint64_t value[4];   /* int64, double bits, 0/1, or a name id; for OT_SLOT_VALUE value[0] holds the double */
    uint64_t arena;      /* position + 1 of the newest arena block, 0 = none */
    uint32_t tracestate; /* name id, 0 = none */
    uint32_t dropped;    /* attributes that found no room */
};

/* An arena block: 8-byte aligned, never across the arena's end. */
struct ot_block {
    uint64_t position; /* owner: writer; bytes ever written before this block: tells an overwritten one */
    uint64_t previous; /* owner: writer; position + 1 of the same span's block before, 0 = none */
    uint32_t bytes;    /* owner: writer; of the payload that follows */
    uint32_t depth;    /* owner: writer; blocks of the span so far, this one included */
    uint16_t key;      /* owner: writer; name id, of an attribute */
    uint8_t type;      /* owner: writer; OT_TYPE_*, of an attribute */
    uint8_t kind;      /* owner: writer; OT_BLOCK_* */
    uint32_t counts;   /* owner: writer; events of the span so far, this one included; from bit 16 on its links */
};

struct ot_probe {
    uint32_t name; /* owner: creator; name id */
    uint8_t tier;  /* owner: creator */
    uint8_t leaf;  /* owner: creator */
    uint8_t kind; /* owner: creator; OpenTelemetry's SpanKind: 0 internal, 1 server, 2 client, 3 producer, 4 consumer */
    uint8_t padding;
    uint64_t sla_ns; /* owner: creator; 0 = none */
    uint32_t scope;  /* owner: creator; name id of the instrumentation scope's JSON object; 0 = otel_trading's own, and
                      * not 0 says that the span was made through OpenTelemetry's API */
    uint32_t reserved;
};

struct ot_instrument {
    uint32_t name;        /* owner: creator; name id */
    uint32_t unit;        /* owner: creator; name id */
    uint32_t description; /* owner: creator; name id */
    uint32_t attributes;  /* owner: creator; name id of a JSON object, 0 = none */
    uint8_t kind;         /* owner: creator; OT_INSTRUMENT_* */
    uint8_t tier;         /* owner: creator */
    uint8_t padding[6];
    uint64_t updates; /* owner: writer */
    uint64_t sum_int; /* owner: writer; int64: the integer part of a counter */
    uint64_t value;   /* owner: writer; double bits: a counter's float part, a gauge's value */
    uint64_t updated; /* owner: writer; ticks of the last update */
    uint64_t reserved;
};

/* An order that was sent, by client order id; in one of OT_ORDER_PROBES places from its hash on. */
struct ot_order {
    uint64_t seq;      /* owner: writer; sequence lock of the entry, odd while it changes (release/acquire); 0 = free */
    uint64_t hash;     /* owner: writer; FNV-1a, 64 bit, of the key */
    uint64_t trace_hi; /* owner: writer; the trace that sent the order … */
    uint64_t trace_lo; /* owner: writer */
    uint64_t span_id;  /* owner: writer; … and the span that its acks and fills are children of */
    uint64_t sent_ns;  /* owner: writer; Unix time */
    uint64_t changed_ns; /* owner: writer; Unix time of the last change of state */
    uint64_t quantity;   /* owner: writer; double bits */
    uint64_t price;      /* owner: writer; double bits; NaN = at market */
    uint64_t filled;     /* owner: writer; double bits; quantity filled so far */
    uint64_t paid;       /* owner: writer; double bits; sum of quantity × price of the fills */
    uint32_t symbol;     /* owner: writer; name id */
    uint8_t side;        /* owner: writer; OT_SIDE_* */
    uint8_t state;       /* owner: writer; OT_ORDER_* */
    uint8_t flags;       /* owner: writer; OT_FLAG_UNSAMPLED */
    uint8_t key_bytes;   /* owner: writer */
    uint8_t key[64];     /* owner: writer; UTF-8 */
    uint64_t reserved[4];
};

struct ot_name {
    uint32_t offset; /* owner: writer; from text_offset */
    uint32_t bytes;  /* owner: writer */
};

#ifndef __cplusplus
_Static_assert(sizeof(struct ot_header) <= OT_PAGE, "header fits a page");
_Static_assert(sizeof(struct ot_control) <= OT_PAGE, "control fits a page");
_Static_assert(sizeof(struct ot_ring) == 256, "a ring header is four cache lines");
_Static_assert(sizeof(struct ot_slot) == 128, "a slot is two cache lines");
_Static_assert(offsetof(struct ot_slot, key) == 64, "what every span has is in the first line");
_Static_assert(sizeof(struct ot_block) == 32, "block");
_Static_assert(sizeof(struct ot_instrument) == 64, "instrument");
_Static_assert(sizeof(struct ot_order) == 192, "an order is three cache lines");
_Static_assert(sizeof(struct ot_probe) == 24, "probe");
#endif

#endif

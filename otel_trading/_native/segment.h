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
#define OT_VERSION 4
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
#define OT_MODES 4
#define OT_TRIGGERS 8
#define OT_COSTS 8
#define OT_BUDGETS 5
#define OT_DECISIONS 128 /* the newest that are remembered */
#define OT_MARKETS 256   /* symbols with market data */
#define OT_VITALS 1024   /* critical events that are remembered */
#define OT_PULSES 1024   /* looks at the process that are remembered, one a second */
#define OT_BEATS 16      /* loops of the program that tell that they go on */
#define OT_VITAL_KEY_BYTES 40
#define OT_AGENT_MAGIC 0x00544e474144544fULL /* "OTDAGNT\0", the page in which an agent tells that it lives */
#define OT_AGENT_VERSION 1
#define OT_SHARED_MAGIC 0x000053444552544fULL /* "OTREDS\0\0", the page that the processes of a directory share */
#define OT_VERDICTS 8192                      /* traces that several processes have to agree on */
#define OT_VERDICT_PROBES 8                   /* places from its own on that a trace may be in */
#define OT_THRESHOLD_BITS 16                  /* of the 56, the highest: thresholds of verdicts are this coarse */
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

/* Modes of the budget, ot_control.mode. */
enum {
    OT_MODE_NORMAL = 0,
    OT_MODE_HIGH_VOLATILITY = 1,
    OT_MODE_STRESSED = 2,
    OT_MODE_EMERGENCY = 3,
};

/* Why a mode was entered, or a decision made. */
enum {
    OT_REASON_NONE = 0,
    OT_REASON_CPU = 1,        /* the system's CPU load */
    OT_REASON_MEMORY = 2,     /* the system's memory */
    OT_REASON_MARKET = 3,     /* volatility and volume */
    OT_REASON_LATENCY = 4,    /* what recording adds to an operation */
    OT_REASON_FORCED = 5,     /* somebody asked for it */
    OT_REASON_VIOLATIONS = 6, /* the budget was exceeded more often than is allowed */
    OT_REASON_RECOVERED = 7,  /* what led to the mode before, or to the step, is over */
    OT_REASON_BUDGET_CPU = 8, /* monitoring's own use, by OT_BUDGET_* from here on */
    OT_REASON_BUDGET_MEMORY = 9,
    OT_REASON_BUDGET_LATENCY = 10,
    OT_REASON_BUDGET_NETWORK = 11,
    OT_REASON_BUDGET_DISK = 12,
};

/* What monitoring may use: rows of ot_policy.budget, items of ot_readings.usage. */
enum {
    OT_BUDGET_CPU = 0,     /* share of one core */
    OT_BUDGET_MEMORY = 1,  /* bytes */
    OT_BUDGET_LATENCY = 2, /* seconds added to an operation */
    OT_BUDGET_NETWORK = 3, /* bytes a second */
    OT_BUDGET_DISK = 4,    /* operations a second */
};

/* ot_decision.kind */
enum {
    OT_DECISION_MODE = 1,      /* another mode; before and after are OT_MODE_* */
    OT_DECISION_RATE = 2,      /* another share of a tier is recorded; before and after are shares */
    OT_DECISION_BUFFERS = 3,   /* another size of the rings; before and after are shares of what was configured */
    OT_DECISION_VIOLATION = 4, /* a limit was exceeded, and nothing is left that could be taken back for it */
    OT_DECISION_ALERT = 5,     /* too many violations in a row: P0 only; after is their number */
    OT_DECISION_FAILED = 6,    /* the engine or the meter can not tell what it has to; recording stays as it was */
    OT_DECISION_WORKS = 7,     /* it can again */
    OT_DECISION_EXPORTS = 8,   /* exports wait, or no longer; before and after are 0 or 1 */
};

/* Who is to drain: ot_control.host and .host_now. */
enum {
    OT_HOST_EMBEDDED = 0, /* the process itself */
    OT_HOST_AGENT = 1,    /* another process, the agent's */
};

/* What has become of a span: the low three bits of its mark, the other five are its lap (see ot_ring.marks_offset). */
enum {
    OT_MARK_NONE = 0,    /* not settled: whoever drains next decides */
    OT_MARK_DROPPED = 1, /* sampled out */
    OT_MARK_SENT = 2,    /* handed to the kernel whole, no answer yet; a drain that takes over does not send it again */
    OT_MARK_EXPORTED = 3,
    OT_MARK_REFUSED = 4,
    OT_MARK_OFFERED = 5, /* in a request whose last byte is about to be sent: ot_control.handed tells whether it was */
};
#define OT_MARK_BITS 3

/* ot_vital.kind */
enum {
    OT_VITAL_ORDER = 1,    /* a change of an order; state is OT_ORDER_* */
    OT_VITAL_RISK = 2,     /* a risk breach */
    OT_VITAL_CRITICAL = 3, /* what the program calls critical */
};

/* ot_life.ending: how the process ended, as far as it could tell itself. */
enum {
    OT_ENDING_NONE = 0,      /* it did not come to tell: killed, or gone without a word */
    OT_ENDING_EXIT = 1,      /* orderly */
    OT_ENDING_EXCEPTION = 2, /* an exception that nobody caught; ending_name is its type */
    OT_ENDING_SIGNAL = 3,    /* a signal that ends a process; code is its number */
};

/* ot_agent.state */
enum {
    OT_AGENT_STARTING = 1,
    OT_AGENT_RUNNING = 2,
    OT_AGENT_STOPPING = 3,
    OT_AGENT_STOPPED = 4,
};

/* ot_control.exports_wait */
enum {
    OT_WAIT_NETWORK = 1,
    OT_WAIT_DISK = 2,
};

/* Why a trace is kept: bits of a trigger set, and their numbers. */
enum {
    OT_TRIGGER_ERROR = 0,
    OT_TRIGGER_REJECT = 1,
    OT_TRIGGER_SLA = 2,
    OT_TRIGGER_RISK = 3,
    OT_TRIGGER_INTERRUPTED = 4, /* the process ended in it */
    OT_TRIGGER_PINNED = 5,
    OT_TRIGGER_SLOW = 6,  /* slower than its stage's rolling p99 */
    OT_TRIGGER_SHARE = 7, /* none of these: the random share */
};

/* What a record costs the thread that makes it: items of ot_policy.cost, in seconds. */
enum {
    OT_COST_FLAT = 0,      /* start/stop and leaf decorators */
    OT_COST_SPAN = 1,      /* with, decorator: becomes current */
    OT_COST_API = 2,       /* a span of OpenTelemetry's API */
    OT_COST_ATTRIBUTE = 3, /* each inline attribute */
    OT_COST_BLOCK = 4,     /* each arena block: long attribute, event, link */
    OT_COST_VALUE = 5,     /* histogram.record */
    OT_COST_UPDATE = 6,    /* counter.add, gauge.set */
    OT_COST_MARKET = 7,    /* market_data */
};

/* ot_verdict.word, bits 0 to 1 */
enum {
    OT_VERDICT_ASKED = 0, /* a process that has spans of the trace, and not its root, waits for the answer */
    OT_VERDICT_KEPT = 1,  /* bits 8 to 23: the threshold it was kept by, 0 = for certain */
    OT_VERDICT_DROPPED = 2,
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
    uint64_t policy_offset;     /* owner: creator; struct ot_policy */
    uint64_t readings_offset;   /* owner: creator; struct ot_readings */
    uint64_t decisions_offset;  /* owner: creator; struct ot_decision[OT_DECISIONS] */
    uint64_t markets_offset;    /* owner: creator; struct ot_market[OT_MARKETS] */
    uint64_t progress_offset;   /* owner: creator; struct ot_progress[max_rings] */
    uint64_t life_offset;       /* owner: creator; struct ot_life */
    uint64_t vitals_offset;     /* owner: creator; struct ot_vital[OT_VITALS] */
    uint64_t pulses_offset;     /* owner: creator; struct ot_pulse[OT_PULSES] */
    uint32_t market_count;      /* owner: writer; release/acquire */
    uint32_t reserved_budget;
    uint64_t orders_evicted;  /* owner: writer; orders that were still open when another took their place */
    uint32_t attribute_limit; /* owner: creator; attributes, events and links of a span that count: the newest, */
    uint32_t event_limit;     /* owner: creator; the rest is told as dropped; OT_NO_LIMIT = all */
    uint32_t link_limit;      /* owner: creator */
    uint32_t reserved;
    uint32_t resource_bytes; /* owner: creator */
    uint32_t closed;         /* owner: writer; 1 after an orderly shutdown (release) */
    uint8_t resource[3072];  /* owner: creator; UTF-8 JSON object of resource attributes */
};

/* One page, everything that another process may steer, and what the drain tells of itself. */
struct ot_control {
    uint64_t tier_word[4];  /* owner: control and governor; what is in force: the strictest of asked, shed and rollout.
                            * Whoever changes one of those writes it, and the governor again at its next tick */
    uint64_t switches;      /* owner: control; OT_SWITCH_* */
    uint64_t threshold;     /* owner: control; traces whose 56 random bits are below it are sampled out, but for those
                            * that a trigger keeps, and those of tier P0 */
    uint64_t generation;    /* owner: control; +1 after each change */
    uint64_t asked[4];      /* owner: control; as tier_word: what people asked of the tier */
    uint64_t shed[4];       /* owner: governor; as tier_word: what mode and budget leave of the tier */
    uint64_t rollout;       /* owner: control; threshold: of P1 to P3 only traces are recorded that are not below it */
    uint64_t forced;        /* owner: control; OT_MODE_* + 1, 0 = the engine decides */
    uint64_t mode;          /* owner: governor (control where it forces one); OT_MODE_* */
    uint64_t mode_since_ns; /* owner: governor; Unix time */
    uint64_t mode_reason;   /* owner: governor; OT_REASON_* */
    uint64_t buffers;       /* owner: governor; the rings should have their configured slots >> buffers */
    uint64_t buffers_now;   /* owner: writer; and have them so */
    uint64_t exports_wait;  /* owner: governor; OT_WAIT_*: exports wait while it is not 0 (flush and shutdown do not) */
    uint64_t host;          /* owner: control; OT_HOST_*: who is to drain.  Its low word is waited on with a futex */
    uint64_t host_now;      /* owner: drain; OT_HOST_*: who does, meaningless while drained_by is 0 */
    uint64_t drained_by;    /* owner: drain; its pid; 0 = nobody.  Only a hint: the role is the lock on the file */
    uint64_t can_take_back; /* owner: creator; 1: it began embedded, and has a thread that waits to be asked to drain */
    uint64_t handed;        /* owner: drain; 1: the kernel has the request whose spans are OT_MARK_OFFERED (release) */
    uint64_t reserved[3];
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
    uint32_t capacity;      /* owner: writer; a power of two; the slots' part of the file is as long as at first */
    uint32_t open_capacity; /* owner: creator */
    uint64_t thread_id;     /* owner: writer; kernel thread id of the present or last owner */
    uint64_t generation;    /* owner: writer; +1 each time a thread takes the ring */
    uint64_t resized; /* owner: writer; head when the capacity last changed: what is older is not there any more */
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
    uint64_t seen; /* owner: drain; records whose figures are in the aggregates; from tail to here they wait for the
                    * verdict on their traces */
    /* line 3 */
    uint64_t
        marks_offset; /* owner: creator; a byte a slot, owner: drain: OT_MARK_* | lap << OT_MARK_BITS, the lap of record
                            * n being n / capacity.  A mark of another lap is none */
    uint64_t padding3[7];
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
    uint8_t
        off_cpu; /* owner: creator; percent of the system's CPU load from which it is switched off, 0 = its tier's */
    uint8_t off; /* owner: governor; 1 = switched off by that */
    uint8_t padding[4];
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

/* One page: what is allowed.  Doubles' bits, unless it says otherwise; seconds, bytes, shares from 0 to 1. */
struct ot_policy {
    uint64_t active;      /* owner: control; a number: 1 = govern and select, 0 = record and export everything */
    uint64_t budget[20];  /* owner: control; OT_BUDGETS rows of OT_MODES; infinity = no limit */
    uint64_t enter[4];    /* owner: control; CPU load for STRESSED and EMERGENCY, then memory for both */
    uint64_t margin;      /* owner: control; how far below that a load has to be before the mode is left */
    uint64_t dwell;       /* owner: control; how long at least before a milder mode follows, or a market's is left */
    uint64_t volatility;  /* owner: control; above both: HIGH_VOLATILITY */
    uint64_t volume;      /* owner: control */
    uint64_t period;      /* owner: control; between two ticks of the governor */
    uint64_t window;      /* owner: control; over which monitoring's own use is looked at, and steps wait */
    uint64_t recover;     /* owner: control; within the budget for so long: one step is taken back */
    uint64_t violations;  /* owner: control; so many steps in a row are borne, one more and it is P0 only */
    uint64_t hold;        /* owner: control; how long a trace may wait for its verdict */
    uint64_t burst;       /* owner: control; the network budget of so many seconds may be saved up */
    uint64_t limit[8];    /* owner: control; traces a second that a trigger may keep, by OT_TRIGGER_* */
    uint64_t cost[8];     /* owner: control; OT_COST_*, as calibrated in this process */
    uint64_t base_memory; /* owner: control; bytes of the process that the package took before it recorded */
    uint64_t exporter_memory; /* owner: control; bytes that the exporters' libraries took: told, not held to a limit */
};

/* One page: what the governor sees, measures and does.  Doubles' bits, unless it says otherwise. */
struct ot_readings {
    uint64_t seq;          /* owner: governor; sequence lock of what follows, odd while it changes (release/acquire) */
    uint64_t ticks;        /* owner: governor; a number: ticks so far */
    uint64_t unix_ns;      /* owner: governor; a number: of the last tick */
    uint64_t cpu_load;     /* owner: governor; of all that this process may use, 0 to 1; NaN = can not be told */
    uint64_t memory_load;  /* owner: governor; likewise */
    uint64_t cpu_stall;    /* owner: governor; PSI: share of the time that somebody waited for a CPU; NaN = not known */
    uint64_t memory_stall; /* owner: governor; likewise, for memory */
    uint64_t volatility;   /* owner: governor; a year's, from the last minute's returns; the highest of all symbols */
    uint64_t volume;       /* owner: governor; of the last 10 s, to what is usual; of the same symbol */
    uint64_t usage[5];     /* owner: governor; OT_BUDGET_* over the policy's window */
    uint64_t cpu_hot;      /* owner: governor; of usage: the recording threads' share, by the calibrated costs */
    uint64_t cpu_drain;    /* owner: governor; the drain's thread */
    uint64_t cpu_export;   /* owner: governor; threads that said that they are monitoring's */
    uint64_t cpu_governor; /* owner: governor; its own */
    uint64_t memory_segment; /* owner: governor; bytes of the segment that take space */
    uint64_t memory_heap;    /* owner: governor; bytes of the drain's tables and queues */
    uint64_t network_total;  /* owner: governor; a number: bytes so far */
    uint64_t disk_total;     /* owner: governor; a number: operations so far */
    uint64_t cpu_total;      /* owner: governor; a number: ns so far, the hot path's included */
    uint64_t violations[5];  /* owner: governor; numbers: OT_BUDGET_* so far */
    uint64_t steps;          /* owner: governor; a number: steps in force that were taken to keep the budget */
    uint64_t in_a_row;       /* owner: governor; a number: violations since it was last within its budget */
    uint64_t horizon;        /* owner: governor; how far back a trace can still be kept whole, s */
    uint64_t tokens;         /* owner: governor; bytes that may be kept at once */
    uint64_t threshold[4];   /* owner: governor; numbers, 56 bits: a plain trace of the tier is kept from it on */
    uint64_t kept[8];        /* owner: drain; numbers: traces, by OT_TRIGGER_* */
    uint64_t missed[8];      /* owner: drain; numbers: traces with a trigger that limit or bucket left out */
    uint64_t dropped;        /* owner: drain; a number: plain traces left out */
    uint64_t decisions;      /* owner: governor; a number: decisions so far (release; readers acquire) */
    uint64_t failed;         /* owner: governor; a number: 1 = it can not tell the pressure now */
};

/* A decision of the governor: number n is in place n % OT_DECISIONS. */
struct ot_decision {
    uint64_t seq;     /* owner: governor; 2n+1 while written, 2n+2 when complete (release/acquire) */
    uint64_t unix_ns; /* owner: governor */
    uint64_t figure;  /* owner: governor; double bits: what was measured */
    uint64_t limit;   /* owner: governor; double bits: what it is held to */
    uint64_t before;  /* owner: governor; double bits, see OT_DECISION_* */
    uint64_t after;   /* owner: governor; double bits */
    uint8_t kind;     /* owner: governor; OT_DECISION_* */
    uint8_t reason;   /* owner: governor; OT_REASON_* */
    uint8_t tier;     /* owner: governor; of OT_DECISION_RATE */
    uint8_t mode;     /* owner: governor; OT_MODE_* in force after it */
    uint32_t reserved0;
    uint64_t reserved;
};

/* The market data of a symbol. */
struct ot_market {
    uint32_t symbol; /* owner: writer; name id; published by market_count */
    uint32_t reserved0;
    uint64_t exchange_ns; /* owner: writer; the exchange's stamp of the newest update, Unix time; 0 = it had none */
    uint64_t received_ns; /* owner: writer; Unix time */
    uint64_t updates;     /* owner: writer */
    uint64_t price;       /* owner: writer; double bits; NaN = none yet */
    uint64_t volume;      /* owner: writer; double bits: sum so far */
    uint64_t reserved[2];
};

/* What has been settled of a ring's spans, so that another drain can take over where this one was killed.  Two sides: one is in
 * force, the other is written, then `side` is changed, so a kill at any moment leaves one that is whole.  Counts are of side * 4 +
 * tier: of everything before `done`, and of later spans that were settled when their slots had been taken by newer records. */
struct ot_progress {
    uint64_t side;           /* owner: drain; 0 or 1 (release; who takes over acquires) */
    uint64_t done[2];        /* owner: drain; all before it counts here, or only the drain has it */
    uint64_t exported[8];    /* owner: drain */
    uint64_t sampled_out[8]; /* owner: drain */
    uint64_t refused[8];     /* owner: drain */
    uint64_t reserved[5];
};

/* One page: what the process tells of its own life. */
struct ot_life {
    uint64_t beat_count;       /* owner: writer; release/acquire */
    uint32_t beat_name[16];    /* owner: writer; name id; published by beat_count */
    uint64_t beat_ns[16];      /* owner: writer; CLOCK_MONOTONIC of the last beat; 0 = the loop has ended, or rests */
    uint64_t beat_late_ns[16]; /* owner: writer; a beat that is older than this is late */
    uint64_t queue;            /* owner: writer; id + 1 of the gauge that is the program's queue, 0 = none */
    uint64_t vital_count;   /* owner: writer; critical events ever written (release after the entry; readers acquire) */
    uint64_t pulse_count;   /* owner: drain; pulses ever written (release/acquire) */
    uint64_t open_orders;   /* owner: writer; orders that have not ended */
    uint64_t ending;        /* owner: writer, also in a signal handler; OT_ENDING_*; stored last (release/acquire) */
    uint64_t ending_code;   /* owner: as ending; exit code, or signal */
    uint64_t ending_ns;     /* owner: as ending; Unix time */
    uint64_t ending_name;   /* owner: as ending; name id of the exception's type */
    uint64_t drain_missing; /* owner: writer; 1: it ended with host AGENT and nobody to drain it */
    uint64_t orders;        /* owner: writer; orders sent so far */
    uint64_t rejects;       /* owner: writer; of them rejected */
};

/* A critical event with the state of the process: what it knew then.  Doubles' bits; NaN = not known. */
struct ot_vital {
    uint64_t seq;      /* owner: writer; 2n+1 while written, 2n+2 when complete (release/acquire) */
    uint64_t unix_ns;  /* owner: writer */
    uint8_t kind;      /* owner: writer; OT_VITAL_* */
    uint8_t state;     /* owner: writer; OT_ORDER_* */
    uint8_t key_bytes; /* owner: writer */
    uint8_t reserved0;
    uint32_t name;          /* owner: writer; name id: the order's symbol, the breach's kind, the event's name */
    uint32_t active_orders; /* owner: writer */
    uint32_t
        market_age_ms; /* owner: writer; since the newest market data of any symbol came; 0xffffffff = there is none */
    uint64_t queue;    /* owner: writer; the queue's gauge */
    uint64_t memory_load; /* owner: writer; of the newest reading of the governor, or NaN */
    uint64_t cpu_load;    /* owner: writer; likewise */
    uint64_t resident;    /* owner: writer; bytes, a number, of the newest pulse; 0 = not known */
    uint64_t latency;     /* owner: writer; seconds since the order was sent, or NaN */
    uint64_t trace_hi;    /* owner: writer; of the event; 0 = none */
    uint64_t trace_lo;    /* owner: writer */
    uint8_t key[40];      /* owner: writer; UTF-8, the beginning of the client order id */
};

/* A look at the process, once a second.  Doubles' bits; NaN = not known. */
struct ot_pulse {
    uint64_t seq;           /* owner: drain; 2n+1 while written, 2n+2 when complete (release/acquire) */
    uint64_t unix_ns;       /* owner: drain */
    uint64_t resident;      /* owner: drain; bytes, a number; 0 = not known */
    uint64_t process_cpu;   /* owner: drain; cores that the process used since the pulse before */
    uint64_t cpu_load;      /* owner: drain; of the governor's newest reading */
    uint64_t memory_load;   /* owner: drain; likewise; of the tightest limit, a cgroup's or the system's */
    uint64_t queue;         /* owner: drain; the queue's gauge */
    uint64_t spans;         /* owner: drain; spans recorded so far, a number */
    uint32_t active_orders; /* owner: drain */
    uint32_t market_age_ms; /* owner: drain; as in ot_vital */
    uint32_t threads;       /* owner: drain; 0 = not known */
    uint32_t late_beats;    /* owner: drain; loops whose beat is late: bits by their numbers */
    uint64_t orders;        /* owner: drain; orders sent so far, a number */
    uint64_t rejects;       /* owner: drain; of them rejected, a number */
    uint64_t updates;       /* owner: drain; updates of market data so far, of all symbols, a number */
    uint64_t major_faults;  /* owner: drain; page faults that read a disk, so far, a number; all ones = not known */
    uint64_t swap;          /* owner: drain; bytes of the process that are swapped out, a number; likewise */
    uint64_t reserved;
};

/* agent.page, a file of the directory: one page, in which the agent tells that it lives. */
struct ot_agent {
    uint64_t magic;            /* owner: agent; OT_AGENT_MAGIC */
    uint64_t version;          /* owner: agent; OT_AGENT_VERSION, stored last (release/acquire) */
    uint64_t pid;              /* owner: agent */
    uint64_t process_start;    /* owner: agent; field 22 of /proc/PID/stat */
    uint64_t started_ns;       /* owner: agent; Unix time */
    uint64_t beat_ns;          /* owner: agent; CLOCK_MONOTONIC of its loop's last turn */
    uint64_t state;            /* owner: agent; OT_AGENT_* */
    uint64_t segments;         /* owner: agent; that it drains */
    uint64_t mode;             /* owner: agent; OT_MODE_*, the strictest of theirs */
    uint64_t watchdog_pid;     /* owner: watchdog; 0 = none */
    uint64_t watchdog_beat_ns; /* owner: watchdog; CLOCK_MONOTONIC */
    uint64_t restarts;         /* owner: watchdog; of the agent, since the watchdog began */
    uint64_t gave_up;          /* owner: watchdog; 1: it restarts it no more */
};

/* The file that all processes of a directory share: first this page, then struct ot_verdict[OT_VERDICTS]. */
struct ot_shared {
    uint64_t magic;         /* owner: creator; OT_SHARED_MAGIC */
    uint64_t version;       /* owner: creator; OT_VERSION; stored last (release/acquire) */
    uint64_t file_bytes;    /* owner: creator */
    uint64_t tokens;        /* owner: any drain; int64: bytes that may be kept at once; changed by atomic addition */
    uint64_t filled_ns;     /* owner: whoever exchanges it; CLOCK_MONOTONIC of the last time that it was filled up */
    uint64_t candidates[4]; /* owner: any drain; bytes of plain traces so far, a tier; changed by atomic addition */
    uint64_t triggered;     /* owner: any drain; bytes kept by triggers so far; changed by atomic addition */
    uint64_t planned_ns;    /* owner: whoever exchanges it; CLOCK_MONOTONIC of the last plan */
    uint64_t threshold[4];  /* owner: who planned last; plain traces of the tier are kept from it on, 56 bits */
    uint64_t planned[5];    /* owner: who planned last; candidates and triggered as they were then */
    uint64_t rate[5];       /* owner: who planned last; double bits: their smoothed bytes a second */
};

/* A trace that several processes have to agree on.  Taken by exchanging trace_lo; old ones are overwritten. */
struct ot_verdict {
    uint64_t trace_lo; /* owner: whoever exchanges it (acquire/release); 0 = free */
    uint64_t trace_hi; /* owner: who took the entry; stored before word */
    uint64_t word;     /* owner: any drain; bits 0-1 OT_VERDICT_*, 8-23 threshold, 24-31 trigger set; release/acquire */
    uint64_t changed_ns; /* owner: any drain; CLOCK_MONOTONIC */
};

struct ot_name {
    uint32_t offset; /* owner: writer; from text_offset */
    uint32_t bytes;  /* owner: writer */
};

#ifndef __cplusplus
_Static_assert(sizeof(struct ot_header) <= OT_PAGE, "header fits a page");
_Static_assert(sizeof(struct ot_control) <= OT_PAGE, "control fits a page");
_Static_assert(sizeof(struct ot_policy) <= OT_PAGE, "the policy fits a page");
_Static_assert(sizeof(struct ot_readings) <= OT_PAGE, "the readings fit a page");
_Static_assert(sizeof(struct ot_shared) <= OT_PAGE, "what is shared fits a page");
_Static_assert(sizeof(struct ot_life) <= OT_PAGE, "what a process tells of its life fits a page");
_Static_assert(sizeof(struct ot_agent) <= OT_PAGE, "what an agent tells of itself fits a page");
_Static_assert(sizeof(struct ot_progress) == 256, "progress");
_Static_assert(sizeof(struct ot_vital) == 128, "a critical event is two cache lines");
_Static_assert(sizeof(struct ot_pulse) == 128, "a pulse is two cache lines");
_Static_assert(sizeof(struct ot_decision) == 64, "decision");
_Static_assert(sizeof(struct ot_market) == 64, "market");
_Static_assert(sizeof(struct ot_verdict) == 32, "verdict");
_Static_assert(sizeof(struct ot_ring) == 256, "a ring header is four cache lines");
_Static_assert(sizeof(struct ot_slot) == 128, "a slot is two cache lines");
_Static_assert(offsetof(struct ot_slot, key) == 64, "what every span has is in the first line");
_Static_assert(sizeof(struct ot_block) == 32, "block");
_Static_assert(sizeof(struct ot_instrument) == 64, "instrument");
_Static_assert(sizeof(struct ot_order) == 192, "an order is three cache lines");
_Static_assert(sizeof(struct ot_probe) == 24, "probe");
#endif

#endif

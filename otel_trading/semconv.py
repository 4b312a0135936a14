"""The names of spans and attributes that our own code records; docs/semantic-conventions.md describes each.

Where OpenTelemetry has a name, that name is used.  An attribute of a span that is passed by name costs least when the
key is one of these objects: keys are found by identity.
"""

from __future__ import annotations

from typing import Final

# ---- what is traded, and where ----

VENUE: Final = "trading.venue"
"""Exchange or other place of trade, a lower-case word: binance, gateio, okx; of an unknown one its host name."""

SYMBOL: Final = "trading.symbol"
"""Instrument, as the program or the venue writes it."""

TIER: Final = "trading.tier"
"""P0 to P3; added to each span of a probe when it is exported."""

# ---- orders ----

ORDER_ID: Final = "trading.order.id"
"""The client's order id."""

ORDER_VENUE_ID: Final = "trading.order.venue_id"
"""The venue's id of the order."""

ORDER_SIDE: Final = "trading.order.side"
"""buy or sell."""

ORDER_TYPE: Final = "trading.order.type"
"""limit, market, and what else the venue has, in lower case."""

ORDER_QUANTITY: Final = "trading.order.quantity"
"""How much, in units of the base."""

ORDER_PRICE: Final = "trading.order.price"
"""Limit price; absent at market."""

ORDER_STATE: Final = "trading.order.state"
"""State that the venue answered with: open, closed, canceled, rejected …"""

ORDER_FILLED: Final = "trading.order.filled"
"""Quantity filled so far."""

ORDER_FILL_PRICE: Final = "trading.order.fill_price"
"""Price of one fill."""

ORDER_FILL_QUANTITY: Final = "trading.order.fill_quantity"
"""Quantity of one fill."""

ORDER_REJECT_REASON: Final = "trading.order.reject_reason"
"""Why the order was refused, as the program or the venue says."""

ORDER_ANOMALY: Final = "trading.order.anomaly"
"""late, repeated or overfilled: an event that does not fit what is known of the order."""

ORDER_COUNT: Final = "trading.order.count"
"""How many orders a call is about, where it is not one."""

# ---- market data, risk ----

MARKET_DATA_EXCHANGE_TIME: Final = "trading.market_data.exchange_time"
"""The exchange's stamp of an update, Unix time in milliseconds; absent where it has none."""

MARKET_DATA_PRICE: Final = "trading.market_data.price"
"""Price of an update."""

MARKET_DATA_VOLUME: Final = "trading.market_data.volume"
"""What was traded in an update."""

RISK_KIND: Final = "trading.risk.kind"
"""Which risk limit was breached, as the program says."""

# ---- what the budget decides ----

MONITORING_KIND: Final = "trading.monitoring.kind"
"""What was decided: mode, rate, buffers, exports, violation, alert, failed, works."""

MONITORING_REASON: Final = "trading.monitoring.reason"
"""Why: cpu, memory, market, latency, forced, violations, recovered, or budget_ and what was exceeded."""

MONITORING_MODE: Final = "trading.monitoring.mode"
"""The mode in force after it: NORMAL, HIGH_VOLATILITY, STRESSED or EMERGENCY."""

MONITORING_FIGURE: Final = "trading.monitoring.figure"
"""What was measured: shares, bytes, seconds, bytes or operations a second."""

MONITORING_LIMIT: Final = "trading.monitoring.limit"
"""What it is held to."""

MONITORING_BEFORE: Final = "trading.monitoring.before"
"""Number of the mode, or share, before."""

MONITORING_AFTER: Final = "trading.monitoring.after"
"""The same after it."""

MONITORING_TIER: Final = "trading.monitoring.tier"
"""The tier whose rate was changed."""

MONITORING_MESSAGE: Final = "trading.monitoring.message"
"""All of it as a sentence."""

# ---- how a process ended, on the span process.death ----

DEATH_HOW: Final = "trading.death.how"
"""How it ended, as a sentence."""

DEATH_CERTAINTY: Final = "trading.death.certainty"
"""How sure that is."""

DEATH_SOURCE: Final = "trading.death.source"
"""Who told it: the kernel, the process itself."""

DEATH_CAUSE: Final = "trading.death.cause"
"""The likely cause, one of docs/forensics.md, or unknown."""

DEATH_CONFIDENCE: Final = "trading.death.confidence"
"""How much the evidence speaks for it, 0 to 1."""

DEATH_EVIDENCE: Final = "trading.death.evidence"
"""What speaks for it."""

DEATH_OPEN_SPANS: Final = "trading.death.open_spans"
"""How many spans it left open."""

DEATH_OPEN_ORDERS: Final = "trading.death.open_orders"
"""How many orders it left open."""

DEATH_SYMBOLS: Final = "trading.death.symbols"
"""Symbols with the newest market data."""

# ---- alerts, as log records ----

ALERT_NAME: Final = "trading.alert.name"
"""Which alert it is."""

ALERT_STATE: Final = "trading.alert.state"
"""firing or resolved."""

# ---- messages ----

MESSAGE_AGE: Final = "trading.message.age"
"""Seconds from the exchange's stamp in the message to the moment the program got it."""

MESSAGE_COUNT: Final = "trading.message.count"
"""Records in what a call of a streaming client handed over."""

MESSAGE_SIZE: Final = "messaging.message.body.size"
"""Bytes of the message (characters, of text that is not ASCII)."""

WEBSOCKET_OPCODE: Final = "trading.websocket.opcode"
"""binary; absent of text."""

WEBSOCKET_QUEUE_LAG: Final = "trading.websocket.queue_lag"
"""Seconds from reading the message's last bytes from the socket to handing it to the program."""

WEBSOCKET_BACKLOG: Final = "trading.websocket.backlog"
"""Messages (frames, where they are fragmented) that wait behind this one; absent where none does."""

WEBSOCKET_ATTEMPT: Final = "trading.websocket.attempt"
"""Which attempt to connect this is since the last that succeeded, from 1."""

WEBSOCKET_SUBPROTOCOL: Final = "trading.websocket.subprotocol"
"""The subprotocol that was agreed on."""

# ---- requests ----

EXCHANGE_API: Final = "trading.exchange.api"
"""Section of the exchange's interface that was called, as ccxt names it: public, private, fapiPrivate."""

EXCHANGE_METHOD: Final = "trading.exchange.method"
"""The client library's method: create_order, watch_trades."""

RATE_LIMIT_WAIT: Final = "trading.rate_limit.wait"
"""Seconds that the client held a request back to keep the venue's rate limit."""

RATE_LIMIT_COST: Final = "trading.rate_limit.cost"
"""What the request takes from the rate limit, in the client library's unit."""

# ---- how a span ended ----

CANCELLED: Final = "trading.cancelled"
"""The task was cancelled in it."""

ABANDONED: Final = "trading.abandoned"
"""The span was dropped without an end."""

INTERRUPTED: Final = "trading.interrupted"
"""The process ended in it."""

# ---- of OpenTelemetry ----

URL_FULL: Final = "url.full"
"""Scheme, host, port and path; never user information, query or fragment, and no path segment that may be a secret."""

URL_TEMPLATE: Final = "url.template"
"""Path of the interface with its placeholders, as the client library declares it."""

URL_PATH: Final = "url.path"
"""Path that a server was asked for, segments that may be secrets left out."""

SERVER_ADDRESS: Final = "server.address"
"""Host name."""

SERVER_PORT: Final = "server.port"
"""Port."""

HTTP_METHOD: Final = "http.request.method"
"""GET, POST …"""

HTTP_STATUS: Final = "http.response.status_code"
"""Status of the answer."""

HTTP_RESEND_COUNT: Final = "http.request.resend_count"
"""Which repetition of the request this is; absent on the first."""

ERROR_TYPE: Final = "error.type"
"""Class of the exception."""

EXCEPTION_TYPE: Final = "exception.type"
"""The same of the exception that ended the process."""

PROCESS_PID: Final = "process.pid"
"""Process id."""

PROCESS_EXIT_CODE: Final = "process.exit.code"
"""Exit code."""

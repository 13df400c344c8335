"""What `GET /metrics` tells: counted in memory since the start, or read from the log at the moment of the scrape.

    families     every name, with its type, its labels, and what to do when it moves
    counting     the counts themselves, plain numbers that cost an event less than a microsecond
    exposition   the text, in the format of Prometheus or OpenMetrics

A label's values are known before the first event: methods, reasons, outcomes, lanes, and the destinations of the
settings. Nothing of an event ever becomes one.
"""

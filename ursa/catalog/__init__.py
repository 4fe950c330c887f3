"""The catalog: three Delta tables under the prefix that ``ACTIVE.json`` names."""

import os

# deltalake has an allocator of its own, jemalloc, which by default keeps what was freed for ten seconds, in each of
# eight arenas: over 10,000 registrations that adds up to 80 MiB (``docs/performance.md``). It reads this once, when it
# is loaded, and nobody else does.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,narenas:2")

# And what other Rust programs are steered by: deltalake reads TOKIO_WORKER_THREADS, DELTARS_* and RUST_* at its first
# query, or later, and panics at what is no number, or is 0. The config names none of them. Its children go without.
_RUST = ("DATAFUSION_", "DELTARS_", "RAYON_", "RUST_", "TOKIO_")
for _name in [name for name in os.environ if name.startswith(_RUST)]:
    del os.environ[_name]

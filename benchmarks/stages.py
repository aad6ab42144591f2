"""The stages that are timed in a worker: each engine alone, and whole steps of a session."""

SESSION_STAGES = ("imagine", "slide", "frame")


SINGLE = ("load", "first_call")  # happen once a run: one value has no spread


SUMMARY_STAGES = ("frame", "imagine", "slide", "encode", "prefill", "step", "decode")


ENGINE_STAGES = {"encode": "encoder", "prefill": "prefill", "step": "step", "decode": "decoder"}


STAGES = (
    "load", "first_call", "encode", "prefill", "step", "decode", "download", "frame", "imagine",
    "slide",
)  # fmt: skip


NOT_FRAMES = ("load", "first_call", "prefill", "download")


BATCH_STAGES = ("frame", "imagine")  # what is timed for more than one session


STAGES_WITH_ERRORS = ("encode", "prefill", "step", "decode", "frame")  # others repeat the rollout's

"""The families of the tests, as a user names families that are not installed."""

PRESETS = {
    "mean-pool": "mean-pool-16",
    "sampled": "sampled-4",
    "recurrent-like": "recurrent-12",
}
CLASSES = (
    "tests.families.mean_pool:MeanPoolFamily",
    "tests.families.sampled:SampledFamily",
    "tests.families.recurrent_like:RecurrentFamily",
)

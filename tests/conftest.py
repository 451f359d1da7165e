"""One set of rules for every test: no clock decides a property test, and no test reaches beyond loopback."""

from hypothesis import settings

# Deadlines measure the machine, not the law: the first call of a test may import torch.
settings.register_profile("semalign", deadline=None)
settings.load_profile("semalign")

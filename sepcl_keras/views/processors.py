"""What makes channels of clips: the protocol, and a separator's snapshot behind it."""

from typing import Protocol

from sepcl_keras.core.arrays import digest
from sepcl_keras.core.backend import inference
from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.fast import INTEGERS, fast_separator
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.separate import BATCH


class Processor(Protocol):
    """What makes channels of clips: a `Snapshot` of a separator, or anything else that has these two names.

    Attributes:
        definition: any nest of dicts, lists, numbers and strings that tells it from others.
    """

    definition: object

    def __call__(self, clips):
        """Channels (clips, sources, samples), float32, of clips (clips, samples); each of its own clip alone."""


class Snapshot:
    """A separator, such as a `TDCNPlusPlus`, as a `Processor`.

    Told how many `samples` clips have, a TDCN++ multiplies 8-bit integers where that is faster and its channels keep
    20 dB of signal-to-noise ratio (see `fast_separator`); the definition says so. `arithmetic` tells which it is.
    """

    def __init__(self, separator, batch_size=BATCH, samples=None):
        self.definition = [separator.config, digest(separator.weights)]
        self._separate, self.arithmetic = inference(separator, batch_size), "separation in float32"
        if samples and isinstance(separator, TDCNPlusPlus):
            try:
                fast = fast_separator(separator, samples)
            except BadInput as error:
                self.arithmetic += f" ({str(error).removeprefix('fast_separator: ').split(';')[0]})"
            else:
                self._separate, self.definition = fast, [*self.definition, INTEGERS]
                self.arithmetic = f"separation by {INTEGERS}, {fast.snr:.0f} dB SNR against float32"

    def __call__(self, clips):
        return self._separate(clips)

from array import array

from loader.frames import Buffer
from loader.model import Batch, Layout, Reject

class Encoder:
    layout: Layout
    rows: int
    rejects: list[Reject]
    ended: bool
    wanted: int
    def __init__(self, layout: Layout, owners: array[int], nodes: int) -> None: ...
    def feed(self, buffer: Buffer, start: int, end: int) -> int: ...
    def ready(self, least: int = ...) -> list[int]: ...
    def take(self, node: int) -> Batch: ...

def count_replies(data: bytes) -> int: ...

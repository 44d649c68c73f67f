"""How a server is set up: limits, its key, what it logs."""

from dataclasses import dataclass, field, fields

from likra.errors import LikraError


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and how many may wait.

    Attributes:
        candidates: of one request.
        characters: of all texts of one request together.
        new_tokens: of a generated answer.
        samples: of "best-of-n".
        waiting: requests that wait for the model; one more is refused (429).
        seconds: from a request to its answer (503 where it waited all the time, else 504).

    """

    candidates: int = 256
    characters: int = 200_000
    new_tokens: int = 512
    samples: int = 64
    waiting: int = 256
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                value = getattr(self, one.name)
                raise LikraError(f"the limit of {one.name} must be above 0, not {value}")

    @property
    def body_bytes(self) -> int:
        """Of a request: room for all characters, each as JSON may escape it, and as much again."""
        return 2 * 12 * self.characters + 65_536


@dataclass(frozen=True)
class Settings:
    """How a server is set up.

    Attributes:
        limits: see `Limits`.
        api_key: what requests must bring as ``Authorization: Bearer KEY``; None for no key.
        log_text: whether texts of requests and messages of errors are logged.
        origins: of web pages that may send requests (CORS); none by default.

    """

    limits: Limits = field(default_factory=Limits)
    api_key: str | None = field(default=None, repr=False)
    log_text: bool = False
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key.split() == [key]):
            raise LikraError(
                "the API key (--api-key or LIKRA_API_KEY) must be ASCII characters without spaces"
            )

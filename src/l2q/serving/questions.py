"""What may be asked, and what is answered: the shapes that OpenAPI describes, with their limits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, model_validator

MOST_K = 1_000
MOST_QUESTIONS = 1_000  # users, new users or items of one request
MOST_NAMES = 10_000  # of a list to leave out or to rank, or of what a new user has
MOST_ANSWERED = 100_000  # places of the rankings of one request
MOST_BYTES = 2**20  # of a request

Word = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Name = Word | StrictInt
"""A name of the index; numbers are taken as words."""
Names = Annotated[list[Name], Field(max_length=MOST_NAMES)]
Some = Annotated[list[Name], Field(min_length=1, max_length=MOST_QUESTIONS)]


class Question(BaseModel):
    """What every question may say beside whom or what it is about."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=MOST_K, description="how many items a ranking has at most")] = 20
    exclude: Annotated[Names, Field(description="items that no ranking shall hold")] = []
    only: Annotated[Names | None, Field(description="the items to rank; all where it is not given")] = None
    index: Annotated[Word | None, Field(description="which of the served indexes; the first")] = None


class Who(Question):
    user: Annotated[Word | None, Field(description="a user of the index")] = None
    item: Annotated[list[Word], Field(max_length=MOST_NAMES, description="what a new user has")] = []

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.user is None) == (not self.item):
            raise ValueError("give user=NAME, or item=NAME once for each item that a new user has")
        return self


class What(Question):
    item: Annotated[Word, Field(description="an item of the index")]


class _Many(Question):
    def _check_places(self, questions: int) -> None:
        if questions * self.k > MOST_ANSWERED:
            raise ValueError(
                f"{questions:,} rankings of {self.k:,} items are more than {MOST_ANSWERED:,} places; "
                "ask in several requests"
            )


class ManyWho(_Many):
    users: Annotated[Some | None, Field(description="users of the index")] = None
    items: Annotated[
        list[Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]] | None,
        Field(
            min_length=1, max_length=MOST_QUESTIONS, description="new users: the items that each of them has"
        ),
    ] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.users is None) == (self.items is None):
            raise ValueError("give users, a list of names, or items, a list of items for each new user")
        self._check_places(len(self.users or self.items or ()))
        return self


class ManyWhat(_Many):
    items: Annotated[Some, Field(description="items of the index")]

    @model_validator(mode="after")
    def _not_too_much(self) -> Self:
        self._check_places(len(self.items))
        return self


class Place(BaseModel):
    item: str
    score: float


class Ranking(BaseModel):
    """One of ``user``, ``items`` (of a new user) and ``item`` says whom or what it is for."""

    user: str | None = None
    items: list[str] | None = None
    item: str | None = None
    popular: Annotated[
        bool,
        Field(description="the user has no train items: these are the most popular items, scored by users"),
    ] = False
    ranking: list[Place]


class _Answered(BaseModel):
    index: str
    version: Annotated[str, Field(description="of the index that answered all of it")]
    exact: Annotated[
        float | None,
        Field(description="approximate: the share of the exact Top-20 that was measured for such rankings"),
    ] = None
    unknown: Annotated[
        list[str], Field(description="names of exclude and only that the index does not know")
    ] = []


class Answer(_Answered, Ranking):
    pass


class Answers(_Answered):
    rankings: list[Ranking]


class Suggestions(BaseModel):
    users: list[str]
    items: list[str]


class ServedIndex(BaseModel):
    name: str
    version: str
    dataset: str
    users: int
    items: int


class Health(BaseModel):
    status: str
    indexes: list[ServedIndex]
    refused: Annotated[str, Field(description="why an index could not be reloaded; empty where none waits")]


class Refusal(BaseModel):
    """One line that says what to do."""

    error: str

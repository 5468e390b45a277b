"""The content of Anthropic's messages: blocks of several types.

Blocks of types that are not listed here are accepted, too: what can be read of them becomes text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from myllm.api.shared.bounded import Name, Parts

# Tags are in brackets, by which the sentences about errors leave them out of the path of a field.
_OTHER: Final = "[other]"


def tagged_as(*known: str) -> Callable[[Any], str]:
    """Return a discriminator of a union: an object's `type` if it is `known`."""
    tags = {tag: f"[{tag}]" for tag in known}

    def tag_of(value: Any) -> str:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return tags.get(kind, _OTHER) if isinstance(kind, str) else _OTHER

    return tag_of


def _as_blocks(content: Any) -> Any:
    """Turn a text into one text block, and null into no blocks."""
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class OtherSource(BaseModel):
    """A source that this server cannot read, such as a file that was uploaded elsewhere."""

    type: Name | None = Field(None, description="Any other type.")


class OtherBlock(BaseModel):
    """A block of any other type. What can be read of it is text for the model."""

    model_config = ConfigDict(extra="allow")

    type: Name = Field(description="Any other type.")


class TextBlock(BaseModel):
    """A text."""

    type: Literal["text"] = Field(description="A text.")
    text: str | None = Field(description="The text.")


class Base64Source(BaseModel):
    """An image that comes with the request."""

    type: Literal["base64"] = Field(description="The image comes with the request.")
    media_type: Name | None = Field("image/png", description="Such as image/png.")
    data: str = Field(description="The image in base64.")


class UrlSource(BaseModel):
    """An image at a URL."""

    type: Literal["url"] = Field(description="The image is at a URL.")
    url: str = Field(description="Its address, or a data: URL.")


class ImageBlock(BaseModel):
    """An image."""

    type: Literal["image"] = Field(description="An image.")
    source: Annotated[
        Annotated[Base64Source, Tag("[base64]")]
        | Annotated[UrlSource, Tag("[url]")]
        | Annotated[OtherSource, Tag(_OTHER)],
        Discriminator(tagged_as("base64", "url")),
    ] = Field(description="Where the image is.")

    @property
    def url(self) -> str | None:
        """The image's URL, a data: URL if it comes with the request; None if it is elsewhere."""
        source = self.source
        if isinstance(source, UrlSource):
            return source.url
        if isinstance(source, Base64Source):
            return f"data:{source.media_type or 'image/png'};base64,{source.data}"
        return None


class TextSource(BaseModel):
    """The text of a document."""

    type: Literal["text"] = Field(description="The document is a text.")
    data: str = Field(description="The text.")


_Text = Annotated[TextBlock, Tag("[text]")]
_Image = Annotated[ImageBlock, Tag("[image]")]
_Other = Annotated[OtherBlock, Tag(_OTHER)]
_Piece = Annotated[_Text | _Image | _Other, Discriminator(tagged_as("text", "image"))]
_Pieces = Annotated[
    Parts[_Piece], BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[_Piece] | None)
]


class ContentSource(BaseModel):
    """The texts and images of a document."""

    type: Literal["content"] = Field(description="The document is a text, or texts and images.")
    content: _Pieces = Field(description="The document.")


class DocumentBlock(BaseModel):
    """A document: a text is read, a PDF is not."""

    type: Literal["document"] = Field(description="A document.")
    source: Annotated[
        Annotated[TextSource, Tag("[text]")]
        | Annotated[ContentSource, Tag("[content]")]
        | Annotated[OtherSource, Tag(_OTHER)],
        Discriminator(tagged_as("text", "content")),
    ] = Field(description="The document's text, or blocks of it.")
    title: Name | None = Field(None, description="Its title.")
    context: str | None = Field(None, description="What else the model is to know about it.")


class SearchResultBlock(BaseModel):
    """One result of a search."""

    type: Literal["search_result"] = Field(description="One result of a search.")
    title: Name | None = Field(None, description="Its title.")
    source: Name | None = Field(None, description="Where it was found.")
    content: _Pieces = Field([], description="Its texts.")


class ToolUseBlock(BaseModel):
    """A tool call by the model."""

    type: Literal["tool_use"] = Field(description="A tool call by the model.")
    id: Name | None = Field(None, description="Names the call; its result repeats it.")
    name: Name = Field(description="The tool.")
    input: Any = Field(None, description="What the tool was called with.")


class ThinkingBlock(BaseModel):
    """Thinking of the model, which goes to chat templates that show it to the model again."""

    type: Literal["thinking"] = Field(description="What the model thought.")
    thinking: str | None = Field(None, description="The thought.")


_Document = Annotated[DocumentBlock, Tag("[document]")]
_Found = Annotated[SearchResultBlock, Tag("[search_result]")]
_SHOWN: Final = ("text", "image", "document", "search_result")
_Shown = Annotated[_Text | _Image | _Document | _Found | _Other, Discriminator(tagged_as(*_SHOWN))]


class ToolResultBlock(BaseModel):
    """The result of a tool call."""

    type: Literal["tool_result"] = Field(description="The result of a tool call.")
    tool_use_id: Name | None = Field(None, description="The id of the call.")
    content: Annotated[
        Parts[_Shown],
        BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[_Shown] | None),
    ] = Field([], description="The result: a text, or texts, images and documents.")
    is_error: bool | None = Field(None, description="Whether the tool failed.")


_Call = Annotated[ToolUseBlock, Tag("[tool_use]")]
_Result = Annotated[ToolResultBlock, Tag("[tool_result]")]
_Thought = Annotated[ThinkingBlock, Tag("[thinking]")]
Block = Annotated[
    _Text | _Image | _Document | _Found | _Call | _Result | _Thought | _Other,
    Discriminator(tagged_as(*_SHOWN, "tool_use", "tool_result", "thinking")),
]
Content = Annotated[
    Parts[Block], BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[Block] | None)
]

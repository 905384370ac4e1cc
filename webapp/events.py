"""What the events of all tabs share: errors in one sentence, and limits of the queue."""

import functools
import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio_client.utils import is_http_url_like

from utils.errors import UserError
from utils.memory import out_of_memory
from utils.text import one_line
from webapp.files import is_upload

Input = TypeVar("Input", gr.Image, gr.File)

NOT_UPLOADED = "this is no file that was uploaded here; drop it on the page"

MAX_WAITING = 20  # requests in the queue; further ones are refused with a sentence
AT_ONCE = 4  # people whose work of one kind takes turns; the others wait in the queue
# of an event that computes; it says itself how far it is, as Gradio's own display takes some cancellations for errors
WORK: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": AT_ONCE, "show_progress": "hidden"}
# of an event that answers at once and must not wait behind those that compute
QUICK: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


def told(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """``function``, whose errors that are the user's to mend reach the page as one sentence."""

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Iterator[Any]:
        try:
            yield from function(*arguments)
        except UserError as error:
            raise sentence(str(error)) from None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise sentence("not enough memory; ask for fewer images, or try again later") from None

    return guarded


def sentence(text: str) -> gr.Error:
    """An error for the page, which shows its text as HTML."""
    return gr.Error(html.escape(one_line(text)), duration=15, print_exception=False)


def photo_input(label: str, **options: Any) -> gr.Image:
    """A place for one photo: dropped, chosen, pasted, or from the camera. Events get the path of the file."""
    photo = gr.Image(label=label, sources=["upload", "webcam", "clipboard"], type="filepath", buttons=[], **options)
    # Gradio's own would decode the file, without our limits
    photo.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return uploads_alone(photo)


def photos_input(label: str, **options: Any) -> gr.File:
    """A place for several files. Events get their paths."""
    return uploads_alone(gr.File(label=label, file_count="multiple", **options))


def uploads_alone(component: Input) -> Input:
    """Let ``component`` take nothing but files that were uploaded here: a request can name any path or address, and
    Gradio checks only those in its own form, and fetches addresses."""
    cached, preprocess = component.async_move_resource_to_block_cache, component.preprocess

    async def from_here(path: str | Path | None) -> str | None:
        if path is not None and is_http_url_like(str(path)):
            raise sentence(NOT_UPLOADED)
        return await cached(path)

    def checked(payload: Any) -> Any:
        files: Any = preprocess(payload)
        several = files if isinstance(files, list) else [] if files is None else [files]
        if not all(is_upload(file) for file in several):
            raise sentence(NOT_UPLOADED)
        return files

    component.async_move_resource_to_block_cache = from_here  # type: ignore[method-assign,assignment]
    component.preprocess = checked  # type: ignore[method-assign]
    return component


def waits(trigger: Callable[..., Any], status: gr.HTML) -> None:
    """Let the page say at once that work was asked for, which may have to wait in the queue."""
    trigger(None, None, status, js="() => 'Waiting for a turn …'", **QUICK)


def stopped_by(button: gr.Button, status: gr.HTML, events: list[Any]) -> None:
    """Let ``button`` cancel the events, and say so when their last words are on the page."""
    cancelled = button.click(None, None, None, cancels=events, **QUICK)
    cancelled.then(lambda: "Stopped.", None, status, **QUICK)

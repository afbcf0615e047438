"""The page of an endpoint in headless Chromium."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright
from waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@dataclass
class Visit:
    """A browser's window on an endpoint; `complaints` is what its console said."""

    page: Page
    endpoint: Any
    complaints: list[str] = field(default_factory=list)

    async def holds(self, expression: str) -> None:
        """Return once a JavaScript expression is true."""
        # Playwright's own way to wait needs eval, which the page's policy forbids.
        async with asyncio.timeout(PATIENCE_S):
            while not await self.page.evaluate(expression):
                await asyncio.sleep(0.02)

    async def says(self, element: str, text: str) -> None:
        """Return once the element with this id shows a text that contains this one."""
        await self.holds(f"document.getElementById('{element}').textContent.includes({text!r})")

    async def make(self, prompt: str = "a cat", **fields: object) -> str:
        """Fill the form in and send it; returns the id of the video, which is shown then."""
        await self.page.fill("#prompt", prompt)
        for name, value in fields.items():
            await self.page.fill(f"#{name}", str(value))
        before = await self.shown()
        await self.page.click("#submit")
        await self.holds(f"location.hash.length > 1 && location.hash !== '#{before}'")
        return await self.shown()

    async def shown(self) -> str:
        """The id of the video that is looked at, from the address."""
        return await self.page.evaluate("location.hash.slice(1)")

    async def video(self, video_id: str) -> dict[str, Any]:
        """What the server says of it."""
        return (await self.endpoint.http.get(f"/v1/videos/{video_id}")).json()

    async def plays(self, second: float) -> None:
        """Return once the video has played beyond a second, and can be seen."""
        await self.holds(f"document.getElementById('video').currentTime > {second}")
        await self.holds("document.getElementById('curtain').hidden")

    async def colour(self) -> tuple[float, float, float]:
        """The mean red, green and blue of what the video shows now."""
        return tuple(await self.page.evaluate(MEAN_COLOUR))


MEAN_COLOUR = """() => {
  const video = document.getElementById("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const brush = canvas.getContext("2d");
  brush.drawImage(video, 0, 0);
  const { data } = brush.getImageData(0, 0, canvas.width, canvas.height);
  return [0, 1, 2].map((c) => data.filter((_, i) => i % 4 === c).reduce((a, b) => a + b) / (data.length / 4));
}"""


@pytest.fixture
def browse(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `scenario(visit)` with the page open; its console may only say what `expected` names.

    `window` is what Playwright's `new_context` takes. `before(page)` is called before the page is opened, which is done
    when `ready` holds.
    """
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")

    def run(
        scenario: Callable[[Visit], Awaitable[Any]],
        *,
        window: dict[str, Any] | None = None,
        before: Callable[[Page], Awaitable[None]] | None = None,
        ready: str = "document.getElementById('size').options.length > 0",
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        async def visiting(endpoint: Any) -> Any:
            async with opened(endpoint, window or {}, before) as visit:
                await visit.holds(ready)
                result = await scenario(visit)
                unexpected = [each for each in visit.complaints if not any(part in each for part in expected)]
                assert unexpected == []
                return result

        return endpoint(visiting, server=True, **options)

    return run


@asynccontextmanager
async def opened(endpoint: Any, window: dict[str, Any], before: Callable[[Page], Awaitable[None]] | None) -> Any:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = await browser.new_page(**window)
            visit = Visit(page, endpoint)
            page.on(
                "console",
                lambda said: visit.complaints.append(said.text) if said.type in ("error", "warning") else None,
            )
            page.on("pageerror", lambda error: visit.complaints.append(str(error)))
            if before:
                await before(page)
            await page.goto(endpoint.url)
            yield visit
        finally:
            await browser.close()

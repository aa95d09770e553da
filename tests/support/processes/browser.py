"""Headless Chromium, driven by Selenium; it records the messages of the console and all requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.cluster import wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A page in Chromium."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Open an address and wait until the page shows the run; an address with another fragment is loaded again."""
        self.driver.get("about:blank")
        self.driver.get(address)
        self.wait("return !document.getElementById('main').hidden", f"{address} shows its run")

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def wait(self, script: str, what: str) -> Any:
        return wait_until(lambda: self.run(script), what)

    def fact(self, name: str) -> str:
        """Return the value of a fact on the page."""
        return str(self.run("return document.querySelector(`[data-fact=${arguments[0]}]`).dataset.value", name))

    def shown(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def seek(self, position: int) -> float:
        """Move the slider, and return the time until the page has drawn the position, in milliseconds."""
        return float(
            self.run(
                "const slider = document.getElementById('slider'); slider.value = arguments[0];"
                "const began = performance.now(); slider.dispatchEvent(new Event('input', {bubbles: true}));"
                "return performance.now() - began;",
                position,
            )
        )

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def complaints(self) -> list[str]:
        """Return the warnings and errors of the console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Return the addresses of all requests since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Open a browser, and close it at the end of the block."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM and DRIVER, "the packages chromium and chromium-driver must be installed; see `make browser-test`"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
        "--lang=en-GB",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

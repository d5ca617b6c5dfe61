"""Whether a place of the page is in view, so that what nobody sees need not be kept up."""

import param
from panel.custom import JSComponent


class InView(JSComponent):
    """Tells Python once the browser has it, and each time its place comes into view or leaves it.

    A hidden tab is out of view. Put it first in a room that follows something.
    """

    there = param.Boolean(default=False, doc="Whether the browser has it.")
    seen = param.Boolean(default=False, doc="Whether it is in view, or nearly so.")

    _esm = """
    export function render({model, el}) {
      el.style.cssText = "display:block;width:1px;height:1px"
      let near = false, leaving = false
      const tell = () => { if (!leaving) model.seen = near && !document.hidden }
      // A page that is being closed is hidden too, and its connection is gone by then.
      addEventListener("pagehide", () => { leaving = true })
      addEventListener("pageshow", () => { leaving = false })
      const observer = new IntersectionObserver((entries) => {
        near = entries[entries.length - 1].isIntersecting
        tell()
      }, {rootMargin: "900px 0px 200px 0px"})
      observer.observe(el)
      document.addEventListener("visibilitychange", tell)
      // What is set while the room is still being put in place would not be sent.
      setTimeout(() => { model.there = true }, 0)
      model.on("remove", () => {
        observer.disconnect()
        document.removeEventListener("visibilitychange", tell)
      })
    }
    """

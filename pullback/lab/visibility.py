"""What the browser knows about a place of the page: whether it is there, and in view."""

import param
from panel.custom import JSComponent


class VisibilityObserver(JSComponent):
    """Tells Python that the browser has it, and each time its place comes into view or leaves it.

    A place in a hidden tab is out of view. Put the observer first in what it is to observe.
    """

    mounted = param.Boolean(default=False, doc="Whether the browser has it.")
    in_view = param.Boolean(default=False, doc="Whether it is in view, or nearly so.")
    margin = param.String(
        default="900px 0px 200px 0px",
        doc="How far out of the window still counts as in view, as CSS has it.",
    )

    _esm = """
    export function render({model, el}) {
      el.style.cssText = "display:block;width:1px;height:1px"
      let near = false, leaving = false
      const tell = () => { if (!leaving) model.in_view = near && !document.hidden }
      // A page that is being closed is hidden too, and its connection is gone by then.
      addEventListener("pagehide", () => { leaving = true })
      addEventListener("pageshow", () => { leaving = false })
      const observer = new IntersectionObserver((entries) => {
        near = entries[entries.length - 1].isIntersecting
        tell()
      }, {rootMargin: model.margin})
      observer.observe(el)
      document.addEventListener("visibilitychange", tell)
      // What is set while the room is still being put in place would not be sent.
      setTimeout(() => { model.mounted = true }, 0)
      model.on("remove", () => {
        observer.disconnect()
        document.removeEventListener("visibilitychange", tell)
      })
    }
    """

"""The CSS of the page. Gradio's variables provide its light and dark colours."""

from __future__ import annotations

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.ld-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 14px; padding: 4px 2px; }
.ld-head h1 { font-size: 1.5rem; font-weight: 700; margin: 0; letter-spacing: -0.02em; }
.ld-head h1 b { color: #f97316; font-weight: 700; }
.ld-head p { margin: 0; color: var(--body-text-color-subdued); font-size: 0.92rem; }
.ld-about { color: var(--body-text-color-subdued); font-size: 0.85rem; line-height: 1.5; overflow-wrap: anywhere; }
.ld-about b { color: var(--body-text-color); font-weight: 600; }
/* A long line of examples must not widen the page. */
.ld-chips { display: flex; flex-wrap: wrap; gap: 6px; contain: inline-size; }
.ld-chips button {
  border: 1px solid var(--border-color-primary); border-radius: 999px; padding: 2px 10px; font-size: 0.8rem;
  background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; text-align: left;
  font-weight: 400;
}
.ld-chips button:hover { border-color: #f97316; color: #f97316; }
.ld-seed button { align-self: flex-end; font-weight: 500; }
.ld-panes { display: flex; gap: 16px; }
.ld-viewer { max-width: 100%; }
.ld-viewer figure { margin: 0; min-width: 0; flex: 1 1 0; max-width: 480px; }
.ld-strip {
  aspect-ratio: var(--ratio); width: 100%; border-radius: 10px;
  image-rendering: pixelated; background-repeat: no-repeat;
  background-color: var(--background-fill-secondary); box-shadow: inset 0 0 0 1px var(--border-color-primary);
  background-size: calc(var(--frames) * 100%) 100%;
  background-position: calc(var(--frame) / var(--last) * 100%) 0;
}
.ld-viewer figcaption {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 8px; align-items: center; padding: 6px 2px 0;
  font-size: 0.85rem; color: var(--body-text-color-subdued);
}
.ld-legend { display: inline-flex; align-items: center; gap: 6px; font-variant-numeric: tabular-nums; }
.ld-legend i { display: inline-block; width: 72px; height: 8px; border-radius: 4px; }
.ld-time { padding-top: 12px; }
.ld-time input { width: 100%; accent-color: #f97316; margin: 0; cursor: pointer; height: 22px; }
.ld-progress { height: 6px; margin: 8px 0; border-radius: 3px; background: var(--border-color-primary); }
.ld-progress div { height: 100%; border-radius: 3px; background: #f97316; }
.ld-ends {
  display: flex; justify-content: space-between; gap: 10px; font-size: 0.85rem;
  color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums;
}
.ld-ends output { color: var(--body-text-color); text-align: center; }
footer { display: none !important; }
@media (max-width: 640px) {
  .ld-chips { flex-wrap: nowrap; overflow-x: auto; padding-bottom: 4px; }
  .ld-chips button { white-space: nowrap; flex: none; }
  .ld-panes { gap: 10px; }
  .ld-legend i { width: 48px; }
  .ld-ends > span { display: none; }
  .ld-ends { justify-content: center; }
}
"""

"""The report of a comparison: one page, its Markdown, its pictures, and the numbers."""

from tljax.study.report.files import plain, text_summary, write

__all__ = ['plain', 'text_summary', 'write']

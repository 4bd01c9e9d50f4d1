"""From numbers to what people read: tables, figures, pages and the words that explain them.

Here enters what formats; whatever computes a number belongs in `measure`.
"""

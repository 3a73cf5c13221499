/** Tables as the inspector gives them: to people as columns, to machines as objects. */

export type Cell = string | number | null

export interface Table {
  /** As SEED's FIG. 12 and the issue call it. */
  readonly title: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
  /** Rows that there are; more than `rows` holds if they were limited. */
  readonly total: number
  /** Why there is nothing in it; undefined if it is what it is. */
  readonly remark?: string
}

/** Most rows of one table that are collected unless a caller asks for more. */
export const DEFAULT_ROW_LIMIT = 1000

/** Collects rows up to a limit and counts all. */
export class TableBuilder {
  readonly #title: string
  readonly #columns: readonly string[]
  readonly #limit: number
  readonly #rows: (readonly Cell[])[] = []
  #total = 0

  constructor(title: string, columns: readonly string[], limit = Number.POSITIVE_INFINITY) {
    this.#title = title
    this.#columns = columns
    this.#limit = limit
  }

  /** Counts a row, and keeps its cells, made by `cells` only then, while there is room. */
  add(cells: () => readonly Cell[]): void {
    if (this.#total++ < this.#limit) this.#rows.push(cells())
  }

  build(): Table {
    return { title: this.#title, columns: this.#columns, rows: this.#rows, total: this.#total }
  }
}

/** Rows as objects keyed by column. */
export function tableObjects(table: Table): Record<string, Cell>[] {
  return table.rows.map((row) => Object.fromEntries(table.columns.map((column, index) => [column, row[index]])))
}

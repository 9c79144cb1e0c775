/** What the drawing of a plan and its drawer, which works beside the page, have in common. */

/** A step as far as its place matters. */
export interface Box {
  readonly key: string
  readonly after: readonly string[]
  readonly height: number
}

export interface Place {
  readonly x: number
  readonly y: number
}

/** Where the boxes of a plan stand. */
export interface Drawing {
  /** By key: the upper left corner. */
  readonly places: Readonly<Record<string, Place>>
  readonly width: number
  readonly height: number
}

export const BOX_WIDTH = 192

/** One table for all lists: sticky header, sortable columns, rows of fixed height while loading, scrolls sideways where narrow. */
import type { ReactNode } from 'react';
import { useI18n } from '../i18n/i18n';
import { Select } from './field';
import { Icon } from './icons';
import { Failure } from './states';
import { formatSort, parseSort } from './url-state';
import './table.css';

export interface Column<Row> {
  readonly id: string;
  readonly header: ReactNode;
  readonly cell: (row: Row) => ReactNode;
  readonly align?: 'end';
  /** Left out on narrow screens; the row's own page still has it. */
  readonly isSecondary?: boolean;
  /** A line of its own in a card. */
  readonly isWide?: boolean;
  readonly sort?: (a: Row, b: Row) => number;
}

export interface Sort {
  readonly column: string;
  readonly isDescending: boolean;
}

interface TableProps<Row> {
  /** Read out as the table's name. */
  readonly caption: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[] | undefined;
  readonly rowKey: (row: Row) => string;
  readonly error?: unknown;
  readonly onRetry?: () => void;
  readonly empty: ReactNode;
  readonly sort?: Sort | undefined;
  readonly onSort?: ((sort: Sort) => void) | undefined;
  readonly skeletonRows?: number;
  /** On narrow screens each row is a card with the headers beside the values, instead of a table cut at the edge. */
  readonly hasCards?: boolean;
}

/** Cards are no longer laid out as a table, which takes the roles away in some browsers. */
const CARD_ROLES = {
  table: { role: 'table' },
  row: { role: 'row' },
  cell: { role: 'cell' },
} as const;

function classOf<Row>(column: Column<Row>): string {
  return [
    column.align === 'end' ? 'cell-end num' : '',
    column.isSecondary ? 'cell-secondary' : '',
    column.isWide ? 'cell-wide' : '',
  ]
    .filter((name) => name !== '')
    .join(' ');
}

function Header<Row>({
  column,
  sort,
  onSort,
}: {
  readonly column: Column<Row>;
  readonly sort: Sort | undefined;
  readonly onSort: ((sort: Sort) => void) | undefined;
}) {
  const isSorted = sort?.column === column.id;
  if (!onSort || !column.sort) {
    return (
      <th scope="col" className={classOf(column)}>
        {column.header}
      </th>
    );
  }
  const direction = isSorted ? (sort.isDescending ? 'descending' : 'ascending') : 'none';
  return (
    <th scope="col" className={classOf(column)} aria-sort={direction}>
      <button
        type="button"
        className="table-sort"
        onClick={() => onSort({ column: column.id, isDescending: isSorted && !sort.isDescending })}
      >
        {column.header}
        <span className={isSorted ? '' : 'table-sort-idle'}>
          <Icon name={isSorted && sort.isDescending ? 'down' : 'up'} size={12} />
        </span>
      </button>
    </th>
  );
}

/** Cards have no header to press: their order is chosen from a list. */
function CardSort<Row>({
  columns,
  sort,
  onSort,
}: {
  readonly columns: readonly Column<Row>[];
  readonly sort: Sort | undefined;
  readonly onSort: (sort: Sort) => void;
}) {
  const { t } = useI18n();
  const options = columns.flatMap(({ id, header: column, sort: compare }) =>
    compare === undefined || typeof column !== 'string'
      ? []
      : [
          { id, label: t('table.ascending', { column }) },
          { id: `-${id}`, label: t('table.descending', { column }) },
        ],
  );
  if (options.length === 0) return null;
  const choose = (id: string) => {
    const chosen = parseSort(id);
    if (chosen) onSort(chosen);
  };
  return (
    <div className="table-card-sort">
      <Select
        label={t('table.sort')}
        options={options}
        value={sort ? formatSort(sort) : ''}
        onChange={choose}
      />
    </div>
  );
}

export function sortRows<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  sort: Sort | undefined,
): readonly Row[] {
  const compare = columns.find((column) => column.id === sort?.column)?.sort;
  if (!compare || !sort) return rows;
  return rows.toSorted((a, b) => (sort.isDescending ? compare(b, a) : compare(a, b)));
}

export function Table<Row>(props: TableProps<Row>) {
  const { caption, columns, rows, rowKey, error, onRetry, empty, sort, onSort, skeletonRows = 5 } = props;
  const { hasCards = false } = props;
  // A table without rows has no use for the role, and must not have it.
  const roles = hasCards && rows && rows.length > 0 ? CARD_ROLES : null;
  const { t } = useI18n();
  const shown = rows && sortRows(rows, columns, sort);
  const isFailed = !rows && error !== undefined && error !== null;
  return (
    <div className="table-scroll" role="region" aria-label={caption} tabIndex={0}>
      {roles && onSort && <CardSort columns={columns} sort={sort} onSort={onSort} />}
      <table
        {...roles?.table}
        className={hasCards ? 'table table-cards' : 'table'}
        aria-busy={!rows && !isFailed}
      >
        <caption className="visually-hidden">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <Header key={column.id} column={column} sort={sort} onSort={onSort} />
            ))}
          </tr>
        </thead>
        <tbody>
          {shown?.map((row) => (
            <tr key={rowKey(row)} {...roles?.row}>
              {columns.map((column) => (
                <td
                  key={column.id}
                  className={classOf(column)}
                  data-header={typeof column.header === 'string' ? column.header : undefined}
                  {...roles?.cell}
                >
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {!rows &&
            !isFailed &&
            Array.from({ length: skeletonRows }, (_, line) => (
              <tr key={line} aria-hidden="true">
                {columns.map((column) => (
                  <td key={column.id} className={classOf(column)}>
                    <span className="skeleton-line" />
                  </td>
                ))}
              </tr>
            ))}
        </tbody>
      </table>
      {!rows && !isFailed && (
        <p className="visually-hidden" role="status">
          {t('state.loading')}
        </p>
      )}
      {rows?.length === 0 && empty}
      {isFailed && <Failure error={error} {...(onRetry && { onRetry })} />}
    </div>
  );
}

export interface Report {
  passed: boolean;
}
export async function checkFilter(_name: string, _options: readonly string[]): Promise<Report> {
  throw new Error('not yet');
}
export function formatReport(_report: Report): string {
  return '';
}

/** Killing pod-dump never harms a session: a short campaign. The long one is `npm run test:kill`. */
import t from 'tap';
import { campaignPrograms, runCampaign } from '../tools/kill-campaign.ts';

const rounds = 8;

t.setTimeout(600_000);
for (const program of campaignPrograms) {
  t.test(program, { timeout: 180_000 }, async (t) => {
    const result = await runCampaign({ program, rounds });
    t.equal(result.failure, undefined, 'the program never notices');
    t.equal(result.rounds, rounds);
    t.ok(result.seized >= 2, `${result.seized} of ${rounds} kills found tasks seized`);
  });
}

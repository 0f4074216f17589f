/** `npm run test:kill [-- ROUNDS]`: the long form of kill-campaign.test.ts, 300 kills a program by default. */
import { campaignPrograms, runCampaign } from '../tools/kill-campaign.ts';

const rounds = Number(process.argv[2] ?? 300);
const wanted = process.env['POD_TEST_PROGRAMS']?.split(',') ?? campaignPrograms;
for (const program of wanted) {
  const result = await runCampaign({ program, rounds, progress: (sentence) => console.error(sentence) });
  const { seized, late, dumpMs, seizedMs } = result;
  console.log(
    `${program}: ${result.rounds} of ${rounds} kills, ${seized} of them with seized tasks (${late} more came too late);` +
      ` a dump takes ${dumpMs.toFixed(0)} ms, ${seizedMs.toFixed(0)} ms of it seized: ${result.failure ?? 'ok'}`,
  );
  if (result.failure) process.exitCode = 1;
}
